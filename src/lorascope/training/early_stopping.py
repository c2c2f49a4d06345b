"""When a trial stops early: the rule, over the losses of its validations.

As transformers' EarlyStoppingCallback with load_best_model_at_end: a validation counts against a
trial unless its loss is lower than all before; after `patience` of them in a row the trial stops;
and with patience the weights of the best validation are kept, whether the trial stops or not. The
last step is validated too.
"""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.records import ValidationPoint


def best_of(points: Sequence[ValidationPoint]) -> ValidationPoint | None:
    """The first with the lowest loss; None where no loss is finite."""
    finite = [(point.loss_nats, point) for point in points if point.loss_nats is not None]
    return min(finite, key=lambda pair: pair[0])[1] if finite else None


def misses(points: Sequence[ValidationPoint]) -> int:
    """Validations since the best one."""
    best = best_of(points)
    return len(points) if best is None else len(points) - 1 - list(points).index(best)


def has_stopped(points: Sequence[ValidationPoint], patience: int) -> bool:
    """Whether patience has run out; 0 is patience without end."""
    return 0 < patience <= misses(points)
