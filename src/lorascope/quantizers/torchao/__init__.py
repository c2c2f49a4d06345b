"""torchao's grids: symmetric and asymmetric weights of 8, 4 and 2 bits, and 8-bit floats."""
