"""Codes that AutoRound's algorithms choose on rows of train, for merged models."""
