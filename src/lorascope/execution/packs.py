"""Which trials of a sweep are trained at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from lorascope.config import Config
from lorascope.counting.parameters import padded_rank

T = TypeVar("T")

OWN = {
    "lora": ("rank", "alpha", "dropout", "rslora"),
    "train": ("learning_rate", "weight_decay", "max_gradient_norm"),
}
"""What each trial of a pack may have for itself."""
LATER = ("merge", "decide", "seed", "ship")
"""The seed is each trial's own too; the others concern what comes after training."""


def packs_of(
    trials: Sequence[T],
    config_of: Callable[[T], Config],
    lanes: int = 1,
    work_of: Callable[[T], float] = lambda trial: 1.0,
) -> list[list[T]]:
    """Trials that share base, data and steps, by rank, at most runtime.pack_trials in each pack.

    Neighbouring ranks come together.

    Args:
        lanes: packs that are trained at the same time.
        work_of: how long a trial's step takes, in any unit: packs of one base and data take about
            equally long.
    """
    groups: dict[str, list[T]] = {}
    for trial in trials:
        groups.setdefault(shared_settings(config_of(trial)), []).append(trial)
    packs = []
    for group in groups.values():
        most = config_of(group[0]).runtime.pack_trials
        by_rank = sorted(group, key=lambda trial: config_of(trial).lora.rank)
        packs += _split_evenly(by_rank, [work_of(trial) for trial in by_rank], most, lanes)
    return packs


def work_at_rank(rank: int, hidden_size: int) -> float:
    """How long a training step takes, where the base alone takes 1: an adapter whose rank is the
    base's own width takes as long again. (Measured on one thread, width 128: four trials of ranks
    16 to 128 take 1.5 times as long as four of ranks 1 to 8; this says 1.38.)"""
    return 1.0 + padded_rank(rank) / hidden_size


def _split_evenly(
    trials: Sequence[T], works: Sequence[float], most: int, lanes: int
) -> list[list[T]]:
    """Neighbours together, at most `most` in a part, parts of about equal work; their number is a
    multiple of `lanes` where there are so many trials."""
    whole = sum(works)
    count = lanes
    while True:
        parts: list[list[T]] = [[] for _ in range(count)]
        before = 0.0
        for trial, work in zip(trials, works, strict=True):
            parts[int((before + work / 2) / whole * count)].append(trial)
            before += work
        if max(len(part) for part in parts) <= most:
            return [part for part in parts if part]
        count += lanes


def shared_settings(config: Config) -> str:
    """Equal for trials that can be trained at once."""
    values = asdict(config)
    rate = config.train.learning_rate if config.train.schedule == "polynomial" else None
    for group, names in OWN.items():
        for name in names:
            del values[group][name]
    # That schedule ends at an absolute rate.
    values["train"]["learning_rate"] = rate
    for name in LATER:
        del values[name]
    return json.dumps(values, sort_keys=True)
