"""Trials that are trained at once around one frozen base: a pack."""
