"""Intervals, tests and power of scores: arithmetic on plain numbers, numpy and scipy at most."""
