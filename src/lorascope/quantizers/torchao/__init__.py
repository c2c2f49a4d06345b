"""torchao's grids of whole numbers: symmetric and asymmetric weights of 8, 4 and 2 bits."""
