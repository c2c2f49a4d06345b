"""What a run needed: bytes and seconds, phase by phase."""
