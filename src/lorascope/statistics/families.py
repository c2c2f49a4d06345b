"""Several tests read together: how often any of them may be wrong."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p values (1979), in the order given.

    With m tests and p sorted upwards, adjusted_(j) = max over i <= j of min(1, (m - i + 1) p_(i)).
    Calling an adjusted p <= 0.05 significant makes any false call in the family at most 5 % likely,
    however the tests depend on each other. None is a comparison that was not tested: it stays None
    and does not count towards m.
    """
    tested = [(p, place) for place, p in enumerate(p_values) if p is not None]
    if not all(0 <= p <= 1 for p, _ in tested):
        raise ValueError(f"p_values={list(p_values)}: each must lie between 0 and 1, or be None")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(sorted(tested)):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = largest
    return adjusted


def holm_hopeful(p_values: Sequence[float | None]) -> list[float | None]:
    """`holm` for one-sided tests doubled, in which those on the wrong side of their limit (p = 1)
    do not count.

    Twice a one-sided p is its chance given that the estimate lies on the right side: where the
    truth lies beyond the limit it is at least as seldom small as a p must be (Zhao, Small and Su,
    JASA 114, 2019). So what is hopeless takes no other's verdict away.
    """
    adjusted = holm(counted(p_values))
    pairs = zip(p_values, adjusted, strict=True)
    return [1.0 if p is not None and new is None else new for p, new in pairs]


def counted(p_values: Sequence[float | None]) -> list[float | None]:
    """The p values that count in `holm_hopeful`; None in place of the others."""
    return [None if p is None or p >= 1 else p for p in p_values]


def choice_factor(choices: int) -> float:
    """Factor on p where the reference is the best of `choices` by the same luck.

    Any of the pairs among them may come to be compared: choices (choices - 1) / 2 in place of
    choices - 1, Bonferroni for all.
    """
    return max(1.0, choices / 2)


def holm_steps(p_values: Sequence[float | None], level: float = 0.05) -> list[int]:
    """Of each p, among how many tests Holm's method divides the level when it comes to it.

    The smallest p among m is held against level / m, the next against level / (m - 1), and so on;
    after the first that fails, all are held against what that one was. 1 for None.
    """
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    steps, found, has_failed = len(tested) + 1, [1] * len(p_values), False
    for p, index in tested:
        steps -= not has_failed
        has_failed = has_failed or p * steps >= level
        found[index] = steps
    return found
