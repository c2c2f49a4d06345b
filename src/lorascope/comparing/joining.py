"""Scored items of several evaluations, joined on their hashes into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorascope.records import ItemResult

Floats = NDArray[np.float64]


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


def item_key(item: ItemResult) -> tuple[str, str, str]:
    """What two results must share to be of the same item."""
    return item.item, item.prompt_sha256, item.target_sha256


def join(evaluations: Sequence[Sequence[ItemResult]]) -> JoinedItems | None:
    """Align `evaluations` on item, prompt and target hashes, in the first one's order.

    Items that some evaluation lacks, or that have no token to lose on, are left out; None where
    nothing is common. Token counts are the first evaluation's: equal targets under one tokenizer
    have equal counts.
    """
    tables = [{item_key(item): item for item in items if item.tokens} for items in evaluations]
    keys = [key for key in tables[0] if all(key in table for table in tables[1:])]
    if not keys:
        return None
    rows = [[table[key] for key in keys] for table in tables]
    judged = all(item.correct is not None for row in rows for item in row)
    correct = np.array([[bool(item.correct) for item in row] for row in rows], dtype=np.float64)
    return JoinedItems(
        correct=correct if judged else None,
        loss_nats=np.array([[item.loss_nats for item in row] for row in rows], dtype=np.float64),
        tokens=np.array([item.tokens for item in rows[0]], dtype=np.float64),
        clusters=_cluster_numbers(rows[0]),
    )


def _cluster_numbers(items: Sequence[ItemResult]) -> NDArray[np.int64] | None:
    """Numbers from 0 on; an item without a cluster is one of its own."""
    names = [item.cluster or f"item {index}" for index, item in enumerate(items)]
    if len(set(names)) == len(names):
        return None
    _, numbers = np.unique(names, return_inverse=True)
    return numbers.astype(np.int64)
