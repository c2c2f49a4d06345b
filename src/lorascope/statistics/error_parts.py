"""How a settled study divides its error among candidates, and its items between choosing the
reference and judging. `comparing.looks` has the argument.
"""

from __future__ import annotations

from lorascope.statistics.power import items_to_show

TAKEN = 2 / 3
"""Share of what is left of the error that a candidate may spend."""
HALVED = 0.5
"""Chance that a candidate as bad as the margin lies beyond it at its first look."""
CHOOSING = 4
"""One cluster of validation items in so many chooses the reference, and judges nothing."""
ONE_SIDED = 0.025
"""Error of one side, for which `items_to_show` counts one comparison."""


def part_of_error(error: float, candidates: int, left: float, is_last: bool) -> float:
    """What the looks at one of so many candidates may spend, where those before it left a share
    `left`; all of that where it is the last one."""
    halved = HALVED if candidates > 1 else 1.0
    return halved * error * left * (1.0 if is_last else TAKEN)


def items_to_settle(margin: float, error: float, candidates: int) -> int:
    """Items that have to judge, fewer of which show no candidate within the margin of accuracy,
    were not one answer different: none may spend more than the first one."""
    first = part_of_error(error, candidates, 1.0, is_last=candidates < 2)
    return items_to_show(margin, ONE_SIDED / first)
