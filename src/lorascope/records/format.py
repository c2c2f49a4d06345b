"""The version of what records look like on disk."""

RECORD_FORMAT = 1
