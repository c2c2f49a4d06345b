"""What is declared, and what of it is there: the grid, its trials, their records."""
