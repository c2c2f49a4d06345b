"""How fast a trained parameter learns. No torch here: kinds say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Rate:
    """What a parameter's learning rate and weight decay are times the trial's."""

    times: float = 1.0
    decay_times: float = 1.0


PLAIN = Rate()
"""The trial's own."""
