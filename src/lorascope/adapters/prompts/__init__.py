"""Prompts: trained positions in front of every sequence, and nothing in the base's layers."""
