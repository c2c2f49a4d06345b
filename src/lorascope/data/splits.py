"""Splits by content: never by row order, never a question in two of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lorascope.config import DataConfig
from lorascope.data.conversations import Conversation
from lorascope.errors import DataError
from lorascope.files.layout import SPLITS

PRECEDENCE = ("test", "validation", "train")
"""Order in which named splits keep a question that stands in several of them."""

EQUAL_REPLIES = "chosen and rejected are equal"


@dataclass(frozen=True)
class Splits:
    """Conversations by split, each split in hash order, and what was dropped on the way."""

    conversations: dict[str, list[Conversation]]
    dropped: dict[str, int]
    """Reason -> rows."""


def split_conversations(
    sources: Mapping[str, Sequence[Conversation]], config: DataConfig
) -> Splits:
    """Remove duplicates and pairs of equal replies, carve the splits that have no source of their
    own out of train, and keep each opening question in one split only. The order of rows does not
    matter. DataError where a split would be empty."""
    dropped: Counter[str] = Counter()
    splits: dict[str, list[Conversation]] = {split: [] for split in SPLITS}
    for source, conversation in _unique(sources, dropped):
        split = _choose(source, conversation.opening, sources, config)
        splits[split].append(conversation)
    for split in SPLITS:
        splits[split].sort(key=lambda c: _stable_hash(config.seed, c.item))
        if not splits[split]:
            raise DataError(_empty_message(split, sources, dropped, config))
    return Splits(splits, dict(dropped))


def _unique(
    sources: Mapping[str, Sequence[Conversation]], dropped: Counter[str]
) -> Iterator[tuple[str, Conversation]]:
    """(source, conversation) without repeats, which are counted in `dropped`."""
    seen: set[str] = set()
    owner: dict[str, str] = {}
    for source in PRECEDENCE:
        for conversation in sources.get(source, ()):
            item = conversation.item
            holder = owner.setdefault(conversation.opening, source)
            if conversation.has_equal_replies:
                dropped[EQUAL_REPLIES] += 1
            elif item in seen:
                dropped["duplicate"] += 1
            elif holder != source:
                dropped[f"question of {source} also in {holder}"] += 1
            else:
                seen.add(item)
                yield source, conversation


def _choose(
    source: str, opening: str, sources: Mapping[str, Sequence[Conversation]], config: DataConfig
) -> str:
    """The split of a row: its source's, or by share where the split has no source."""
    if source != "train":
        return source
    test = 0.0 if "test" in sources else config.test_fraction
    validation = 0.0 if "validation" in sources else config.validation_fraction
    position = int(_stable_hash(config.seed, opening)[:15], 16) / 16**15
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def _stable_hash(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def _empty_message(
    split: str,
    sources: Mapping[str, Sequence[Conversation]],
    dropped: Mapping[str, int],
    config: DataConfig,
) -> str:
    if split in sources and split != "train":
        remedy = f"Name another source in data.{split}, or leave it empty to take a share of train."
    elif split == "train":
        remedy = "Add rows to data.train whose questions stand in no other split."
    else:
        remedy = (
            f"Add rows, raise data.{split}_fraction={getattr(config, f'{split}_fraction')}, "
            f"or name a file in data.{split}."
        )
    openings = {c.opening for rows in sources.values() for c in rows}
    why = ", ".join(f"{reason}: {rows}" for reason, rows in sorted(dropped.items())) or "none"
    return (
        f"The {split} split is empty: the sources hold {len(openings)} different questions, and "
        f"all rows of one question stay in one split (dropped: {why}). {remedy}"
    )
