"""How sure a share of right answers is."""

from __future__ import annotations

import math

Z_95 = 1.959964
"""The normal deviate that leaves 2.5 % on either side."""


def standard_error(share: float, items: int) -> float:
    """Standard error of a share over `items` independent items: sqrt(p (1 - p) / n)."""
    _check(share, items)
    return math.sqrt(share * (1 - share) / items)


def wilson_interval(share: float, items: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval (1927) for a share over `items`; 95 % by default.

    Unlike share +- z x standard error it stays inside [0, 1] and has a width at 0 and at 1.
    It covers the sampling of items, not the seed of a training.
    """
    _check(share, items)
    shrink = 1 + z * z / items
    middle = (share + z * z / (2 * items)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items))
    # The ends are exact at 0 and 1; rounding must not move them out of the range.
    return max(0.0, middle - half), min(1.0, middle + half)


def _check(share: float, items: float) -> None:
    if items < 1:
        raise ValueError(f"items={items}: a share needs 1 item or more")
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: must lie between 0 and 1")
