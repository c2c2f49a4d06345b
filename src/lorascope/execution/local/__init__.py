"""This computer as a place to run packs: slots and processes."""
