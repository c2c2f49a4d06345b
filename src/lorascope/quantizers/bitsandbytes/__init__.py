"""bitsandbytes: its layers without data, and what its kernels allocate."""
