"""The trials that people are shown more of: the first seeds of the configurations that validate
best. The test split chooses nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from lorascope.config import Config
from lorascope.records import EvaluationRecord

Scored = tuple[Config, EvaluationRecord]
"""A declared trial, and its scores."""


def leading(scored: Sequence[Scored], count: int) -> list[Scored]:
    """Of the best `count` configurations by their mean validation score over seeds, best first, the
    first seed each: accuracy where items can be right or wrong, then the loss. A trial whose loss
    is not finite does not count."""
    configurations: dict[str, list[Scored]] = {}
    for config, record in scored:
        if math.isfinite(record.splits["validation"].completion_loss_nats):
            key = repr(replace(config, seed=0))
            configurations.setdefault(key, []).append((config, record))
    best = sorted(configurations.values(), key=_score, reverse=True)[:count]
    return [min(seeds, key=lambda one: one[0].seed) for seeds in best]


def _score(seeds: Sequence[Scored]) -> tuple[float, float]:
    """The higher the better."""
    splits = [record.splits["validation"] for _, record in seeds]
    accuracy = fmean(split.accuracy or 0.0 for split in splits)
    return accuracy, -fmean(split.completion_loss_nats for split in splits)
