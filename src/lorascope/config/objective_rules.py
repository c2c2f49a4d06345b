"""Rules of what an objective goes with, in other groups and among its own settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lorascope.config import PAIRS, PREFERENCES, Config, Scoring, TrainConfig
from lorascope.config.objectives import READ_BY, REFERENCED
from lorascope.config.rule import Rule


def _is_read(name: str, objectives: Sequence[str], config: Config) -> bool:
    is_default = getattr(config.train, name) == getattr(TrainConfig, name)
    return is_default or config.train.objective in objectives


OF_OBJECTIVES = [
    Rule(
        "train.qat",
        lambda c: c.train.qat is None
        or c.train.reference_free
        or c.train.objective not in REFERENCED,
        "the reference is a base whose adapted layers are not rounded, and what is trained is "
        "rounded throughout",
        "Leave it out, or take train.reference_free=true or another objective.",
    ),
    Rule(
        "train.objective",
        lambda c: c.train.objective not in PREFERENCES or c.data.format in PAIRS,
        "it learns from pairs of a chosen and a rejected reply, and this data.format has none",
        f"Take data with data.format={', '.join(PAIRS[:-1])} or {PAIRS[-1]}, or "
        "train.objective=completion.",
    ),
    Rule(
        "data.train_on_prompt",
        lambda c: c.train.objective not in PREFERENCES or not c.data.train_on_prompt,
        "preferences are learnt from the replies alone", "Set it to false.",
    ),
    *(
        Rule(
            f"train.{name}",
            partial(_is_read, name, objectives),
            "this train.objective does not read it",
            f"Leave it out, or take train.objective={' or '.join(objectives)}.",
        )
        for name, objectives in READ_BY.items()
    ),
    Rule(
        "data.scoring",
        lambda c: c.data.scoring is not Scoring.preference or c.data.format in PAIRS,
        "it asks which of two replies is preferred, and this data.format has one",
        f"Take data with data.format={', '.join(PAIRS[:-1])} or {PAIRS[-1]}, or another scoring.",
    ),
]  # fmt: skip
