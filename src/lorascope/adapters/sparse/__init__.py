"""Sparse tuning: a share of the base's own weights, chosen before the first step."""
