"""This computer: its devices and memory, imports of large libraries, progress in a terminal."""
