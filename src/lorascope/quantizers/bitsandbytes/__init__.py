"""bitsandbytes: INT8 and two kinds of 4 bits."""
