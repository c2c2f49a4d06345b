"""Meters of a run: its bytes, phase by phase."""
