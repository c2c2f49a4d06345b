"""The version of the records' format on disk."""

RECORD_FORMAT = 2
"""2 since the key of a trial names its method and dials."""
