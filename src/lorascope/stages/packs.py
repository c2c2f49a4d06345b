"""Which trials of a sweep are trained at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from lorascope.config import Config
from lorascope.maths.parameters import padded_rank

T = TypeVar("T")

OWN = {
    "lora": ("rank", "alpha", "dropout", "rslora"),
    "train": ("learning_rate", "weight_decay", "max_gradient_norm"),
}
"""What each trial of a pack may have for itself."""
LATER = ("merge", "decide", "seed", "ship")
"""The seed is each trial's own too; the others concern what comes after training."""


def packs_of(trials: Sequence[T], config_of: Callable[[T], Config]) -> list[list[T]]:
    """Trials that share base, data and steps, by rank, at most runtime.pack_trials in each pack.

    Neighbouring ranks come together. The first packs are full, so that a sweep that goes on where
    it was interrupted makes the same packs of what is left, unless trials failed before.
    """
    groups: dict[str, list[T]] = {}
    for trial in trials:
        groups.setdefault(shared_settings(config_of(trial)), []).append(trial)
    packs = []
    for group in groups.values():
        size = config_of(group[0]).runtime.pack_trials
        by_rank = sorted(group, key=lambda trial: padded_rank(config_of(trial).lora.rank))
        packs += [by_rank[start : start + size] for start in range(0, len(by_rank), size)]
    return packs


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
