"""Arithmetic on plain numbers: parameter counts, bytes, bits, intervals. numpy at most, no I/O."""
