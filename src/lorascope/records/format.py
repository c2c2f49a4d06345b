"""The version of the records' format on disk."""

RECORD_FORMAT = 1
