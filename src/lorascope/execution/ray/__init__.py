"""A cluster of Ray as a place to run packs: a task each."""
