"""Up to how many tokens a trial packing pays, from ratios at a few sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

PAYS = 1.05
"""The least ratio that is worth it: below, what packing saves is within the noise of a run."""


def break_even_tokens(points: Sequence[tuple[int, float]]) -> float:
    """Tokens a trial and step at which the ratio falls to `PAYS`.

    Between two measured sizes the ratio is taken as linear in log(tokens). Beyond the largest one
    nothing is guessed: where packing pays at every size, that size. Where it pays at none, 0.

    Args:
        points: (tokens a trial, ratio) with tokens ascending.
    """
    if points[0][1] <= PAYS:
        return 0.0
    for (smaller, above), (larger, below) in pairwise(points):
        if below <= PAYS:
            share = (above - PAYS) / (above - below)
            return math.exp(math.log(smaller) + share * math.log(larger / smaller))
    return float(points[-1][0])


def told(tokens: float, points: Sequence[tuple[int, float]]) -> str:
    """`break_even_tokens` in words."""
    sizes = f"{points[0][0]} to {points[-1][0]} tokens"
    if tokens == 0:
        return f"Packing pays at no size measured ({sizes})."
    if tokens >= points[-1][0]:
        return f"Packing pays at every size measured ({sizes}); larger ones were not."
    return f"Packing pays up to about {tokens:.0f} tokens a trial and step (measured: {sizes})."
