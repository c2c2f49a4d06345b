"""Scored items as arrays, and several evaluations of the same items side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.records import ItemResult, Study, item_column

Floats = NDArray[np.float64]
ItemKey = tuple[str, str, str]
NAMES = "names of items"
KEY = ("item", "prompt_sha256", "target_sha256")


@dataclass(frozen=True)
class JoinedItems:
    """The same items under several evaluations. Axes: evaluations E, items I."""

    correct: Floats | None
    """[E, I] zeros and ones; None where items cannot be right or wrong."""
    loss_nats: Floats
    """[E, I], summed over each item's tokens."""
    tokens: Floats
    """[I]"""
    clusters: NDArray[np.int64] | None
    """[I] group numbers; None where every item stands alone."""

    @property
    def items(self) -> int:
        return int(self.tokens.size)

    @property
    def cluster_count(self) -> int | None:
        return None if self.clusters is None else int(self.clusters.max()) + 1

    def losses_per_token(self) -> Floats:
        """[E, I] losses whose plain mean over items is the loss per token: the ratio estimate's
        items, each loss over the mean number of tokens."""
        losses: Floats = self.loss_nats / self.tokens.mean()
        return losses


@dataclass(frozen=True)
class ItemNames:
    """What tells the items of an evaluation apart, and what they share [I]: the same of all
    evaluations of one split, and then one object."""

    keys: tuple[ItemKey, ...]
    """What two results must share to be of the same item: its hash, its prompt's, its target's."""
    shared: tuple[str | None, ...]

    @cached_property
    def places(self) -> dict[ItemKey, int]:
        return {key: place for place, key in enumerate(self.keys)}

    @cached_property
    def clusters(self) -> NDArray[np.int64] | None:
        """Group numbers of all items."""
        return cluster_numbers(self.shared)

    def clusters_of(self, places: Sequence[int]) -> NDArray[np.int64] | None:
        """Group numbers of some items [places], as `cluster_numbers`."""
        return cluster_numbers([self.shared[place] for place in places])


class ItemColumns:
    """The items of one evaluation [I], without those that have no token to lose on."""

    def __init__(
        self, items: Sequence[ItemResult], known: dict[WrittenNames, ItemNames] | None = None
    ) -> None:
        """`known` has the names of other evaluations' items, and gets these."""
        known = {} if known is None else known
        place = _written_names(items)
        if place not in known or not all(item_column(items, "tokens")):
            items = _last_of_each(items)
            place = _written_names(items)
            known.setdefault(place, ItemNames(tuple(zip(*place[:-1], strict=True)), place[-1]))
        self.names = known[place]
        right = np.array(item_column(items, "correct"), dtype=np.float64)
        self.judged = ~np.isnan(right)
        self.correct = np.nan_to_num(right)
        self.loss_nats = np.array(item_column(items, "loss_nats"), dtype=np.float64)
        self.tokens = np.array(item_column(items, "tokens"), dtype=np.float64)


WrittenNames = tuple[tuple[Any, ...], ...]


def _written_names(items: Sequence[ItemResult]) -> WrittenNames:
    """What `KEY` names of the items, column by column, and what they share."""
    # Of pairs without a cluster the prompt is shared (`ItemResult.shared`).
    rejected = item_column(items, "rejected_loss_nats")
    is_pair = rejected.count(None) < len(rejected)
    shared = [item.shared for item in items] if is_pair else item_column(items, "cluster")
    return (*(tuple(item_column(items, name)) for name in KEY), tuple(shared))


def _last_of_each(items: Sequence[ItemResult]) -> Sequence[ItemResult]:
    """Items with tokens; of several results of one item the last."""
    keys = list(zip(*(item_column(items, name) for name in KEY), strict=True))
    if all(item_column(items, "tokens")) and len(set(keys)) == len(keys):
        return items
    last = {key: item for key, item in zip(keys, items, strict=True) if item.tokens}
    return list(last.values())


def cluster_numbers(shared: Sequence[str | None]) -> NDArray[np.int64] | None:
    """Numbers from 0 on of what items share [items]; an item that shares nothing is one of its own.
    None where all are."""
    names = [name or f"item {index}" for index, name in enumerate(shared)]
    if len(set(names)) == len(names):
        return None
    _, inverse = np.unique(names, return_inverse=True)
    numbers = inverse.astype(np.int64)
    numbers.setflags(write=False)
    return numbers


def join(evaluations: Sequence[Sequence[ItemResult]]) -> JoinedItems | None:
    """Align `evaluations` on item, prompt and target hashes, in the first one's order.

    Items that some evaluation lacks, or that have no token to lose on, are left out; None where
    nothing is common. Token counts are the first evaluation's: equal targets under one tokenizer
    have equal counts.
    """
    return join_columns([ItemColumns(items) for items in evaluations])


def join_columns(columns: Sequence[ItemColumns]) -> JoinedItems | None:
    """As `join`."""
    first = columns[0].names
    if all(own.names is first or own.names.keys == first.keys for own in columns):
        return _stacked(columns) if first.keys else None
    keys = [key for key in first.keys if all(key in own.names.places for own in columns[1:])]
    if not keys:
        return None
    places = [[own.names.places[key] for key in keys] for own in columns]
    picked = list(zip(columns, places, strict=True))
    return JoinedItems(
        correct=np.array([own.correct[at] for own, at in picked])
        if all(own.judged[at].all() for own, at in picked)
        else None,
        loss_nats=np.array([own.loss_nats[at] for own, at in picked]),
        tokens=columns[0].tokens[places[0]],
        clusters=first.clusters_of(places[0]),
    )


def _stacked(columns: Sequence[ItemColumns]) -> JoinedItems:
    """Of evaluations of the same items in the same order."""
    judged = all(own.judged.all() for own in columns)
    return JoinedItems(
        correct=np.array([own.correct for own in columns]) if judged else None,
        loss_nats=np.array([own.loss_nats for own in columns]),
        tokens=columns[0].tokens,
        clusters=columns[0].names.clusters,
    )


def columns_of(study: Study, evaluation: str, split: str) -> ItemColumns | None:
    """The items of the evaluation with this identity, made once for a study; None without items."""
    items = study.items.get(evaluation, {}).get(split)
    if not items:
        return None
    place = evaluation, split
    if place not in study.made_of_items:
        known = study.made_of_items.setdefault(NAMES, {})
        study.made_of_items[place] = ItemColumns(items, known)
    found: ItemColumns = study.made_of_items[place]
    return found
