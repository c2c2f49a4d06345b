"""What of a micro-batch decides the memory that it needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Batch:
    """A micro-batch of one trial, and what is there already when it comes."""

    samples: int
    tokens: int
    """Padded, a sample."""
    padded: bool
    """Whether some sample is shorter: attention then gets a mask."""
    optimizer_state: bool = True
    """Not in the first step."""

    @property
    def shape(self) -> tuple[int, int]:
        """(samples, padded tokens a sample)"""
        return self.samples, self.tokens
