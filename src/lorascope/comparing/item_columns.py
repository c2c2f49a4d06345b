"""Scored items as arrays, and several evaluations of the same items side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lorascope.records import ItemResult, Study

Floats = NDArray[np.float64]
ItemKey = tuple[str, str, str]


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


def item_key(item: ItemResult) -> ItemKey:
    """What two results must share to be of the same item."""
    return item.item, item.prompt_sha256, item.target_sha256


class ItemColumns:
    """The items of one evaluation [I], without those that have no token to lose on."""

    def __init__(self, items: Sequence[ItemResult]) -> None:
        by_key = {item_key(item): item for item in items if item.tokens}
        own = list(by_key.values())
        self.keys = tuple(by_key)
        self.judged = np.array([item.correct is not None for item in own], dtype=bool)
        self.correct = np.array([float(item.correct or 0) for item in own])
        self.loss_nats = np.array([item.loss_nats for item in own], dtype=np.float64)
        self.tokens = np.array([item.tokens for item in own], dtype=np.float64)
        self._shared = [item.shared for item in own]

    @cached_property
    def places(self) -> dict[ItemKey, int]:
        return {key: place for place, key in enumerate(self.keys)}

    @cached_property
    def clusters(self) -> NDArray[np.int64] | None:
        """Group numbers of all items."""
        return self.clusters_of(range(len(self.keys)))

    def clusters_of(self, places: Sequence[int]) -> NDArray[np.int64] | None:
        """Group numbers of some items [places], as `cluster_numbers`."""
        return cluster_numbers([self._shared[place] for place in places])


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
    first = columns[0]
    if all(own.keys is first.keys or own.keys == first.keys for own in columns):
        return _stacked(columns) if first.keys else None
    keys = [key for key in first.keys if all(key in own.places for own in columns[1:])]
    if not keys:
        return None
    places = [[own.places[key] for key in keys] for own in columns]
    picked = list(zip(columns, places, strict=True))
    return JoinedItems(
        correct=np.array([own.correct[at] for own, at in picked])
        if all(own.judged[at].all() for own, at in picked)
        else None,
        loss_nats=np.array([own.loss_nats[at] for own, at in picked]),
        tokens=first.tokens[places[0]],
        clusters=first.clusters_of(places[0]),
    )


def _stacked(columns: Sequence[ItemColumns]) -> JoinedItems:
    """Of evaluations of the same items in the same order."""
    judged = all(own.judged.all() for own in columns)
    return JoinedItems(
        correct=np.array([own.correct for own in columns]) if judged else None,
        loss_nats=np.array([own.loss_nats for own in columns]),
        tokens=columns[0].tokens,
        clusters=columns[0].clusters,
    )


def columns_of(study: Study, evaluation: str, split: str) -> ItemColumns | None:
    """The items of the evaluation with this identity, made once for a study; None without items."""
    items = study.items.get(evaluation, {}).get(split)
    if not items:
        return None
    place = evaluation, split
    if place not in study.made_of_items:
        columns = ItemColumns(items)
        # One tuple stands for all evaluations of the same items.
        columns.keys = study.made_of_items.setdefault(columns.keys, columns.keys)
        study.made_of_items[place] = columns
    found: ItemColumns = study.made_of_items[place]
    return found
