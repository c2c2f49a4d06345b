"""Where trials run: packs of a sweep, each in a process of its own."""
