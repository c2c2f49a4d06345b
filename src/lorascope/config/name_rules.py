"""Names, which become folders, and seeds."""

from __future__ import annotations

import re
from collections.abc import Callable

from lorascope.config import Config
from lorascope.config.rule import Rule

NAMED_GROUPS = ("model", "data", "quant", "train", "decide")
"""Groups of conf/ whose files have a `name`."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_NAME_LENGTH = 64
"""A trial's folder carries its mode's name and more, and file systems end at 255 bytes."""
FOLDERS_OF_STAGES = ("base", "merged", "raw")
"""models/<model>/base and models/<model>/merged lie beside models/<model>/<quant>; models/raw and
data/raw beside models/<model> and data/<data>."""
NOT_CHOSEN = "???"
"""Of a group that no file was chosen of, which Hydra refuses and tests leave so."""
MAX_SEED = 2**32 - 1
"""Of numpy's and torch's generators, which transformers seeds together."""


def is_name(text: str) -> bool:
    """Whether `text` may be called so, and its folder be made and replaced."""
    return (
        NAME.fullmatch(text) is not None
        and len(text) <= MAX_NAME_LENGTH
        # Some file systems do not tell upper from lower case.
        and text.lower() not in FOLDERS_OF_STAGES
    )


def _name_rule(group: str) -> Rule:
    def holds(config: Config) -> bool:
        name = getattr(config, group).name
        return name == NOT_CHOSEN or is_name(name)

    return Rule(
        f"{group}.name", holds,
        f"names a folder, so that it takes 1 to {MAX_NAME_LENGTH} letters, digits, dots, dashes "
        "and underscores, a letter or digit first, and is none of "
        f"{', '.join(FOLDERS_OF_STAGES)}, which stages make themselves",
        f"Give the file in conf/{group}, and `name` in it, another name.",
    )  # fmt: skip


def _seed_rule(key: str, seed_of: Callable[[Config], int]) -> Rule:
    return Rule(
        key, lambda config: 0 <= seed_of(config) <= MAX_SEED,
        f"a seed must be a whole number from 0 to {MAX_SEED}", "0 is usual.",
    )  # fmt: skip


NAME_RULES = [_name_rule(group) for group in NAMED_GROUPS]
SEED_RULES = [
    _seed_rule("seed", lambda config: config.seed),
    _seed_rule("data.seed", lambda config: config.data.seed),
    _seed_rule("model.pretrain_seed", lambda config: config.model.pretrain_seed),
]
