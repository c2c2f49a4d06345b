"""Adapter-H: a small network behind each attention and each MLP."""
