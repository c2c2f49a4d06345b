"""Scores of predicted classes beside accuracy: F1 and Matthews correlation.

Both are made of counts of (class, prediction), and not of one number an item: their intervals come
from drawing items again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""[..., classes, classes]: items of a class (rows) that were given another (columns)."""
RESAMPLES = 2000


def confusion(pairs: Sequence[tuple[int, int]]) -> Counts:
    """Counts [classes, classes] of (class, prediction)."""
    both = np.asarray(pairs, dtype=np.int64)
    size = int(both.max()) + 1
    flat = np.bincount(both[:, 0] * size + both[:, 1], minlength=size * size)
    return flat.reshape(size, size).astype(np.int64)


def macro_f1(counts: Counts) -> float:
    """Mean of the classes' F1 scores, as scikit-learn's f1_score(average="macro"): a class counts
    where an item has it or was given it, and 0 where none is right."""
    return float(_macro_f1(counts))


def matthews(counts: Counts) -> float:
    """Matthews correlation, for any number of classes (Gorodkin 2004): 1 where all are right, 0 for
    a guess, and where all items have, or were given, one class."""
    return float(_matthews(counts))


def _macro_f1(counts: Counts) -> NDArray[np.float64]:
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(-1) + counts.sum(-2)
    scores = np.divide(2 * right, both, out=np.zeros(both.shape), where=both > 0)
    found: NDArray[np.float64] = scores.sum(-1) / (both > 0).sum(-1)
    return found


def _matthews(counts: Counts) -> NDArray[np.float64]:
    right = np.trace(counts, axis1=-2, axis2=-1).astype(float)
    items = counts.sum((-2, -1)).astype(float)
    theirs, given = counts.sum(-1).astype(float), counts.sum(-2).astype(float)
    above = right * items - (theirs * given).sum(-1)
    spread = (items**2 - (theirs**2).sum(-1)) * (items**2 - (given**2).sum(-1))
    found: NDArray[np.float64] = np.divide(
        above, np.sqrt(spread), out=np.zeros(above.shape), where=spread > 0
    )
    return found


def class_intervals(
    pairs: Sequence[tuple[int, int]], groups: Sequence[str | None], confidence: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of macro F1 and Matthews correlation over items drawn again.

    Args:
        groups: what an item shares with others, which are then drawn together; None is the item
            alone.
    """
    size = int(np.max(pairs)) + 1
    names = [f"item {n}" if group is None else group for n, group in enumerate(groups)]
    _, group_of = np.unique(names, return_inverse=True)
    count = int(group_of.max()) + 1
    # Counts of each group, flat, so that a draw is a product.
    by_group = np.zeros((count, size * size), dtype=np.int64)
    cells = np.asarray([label * size + said for label, said in pairs])
    np.add.at(by_group, (group_of, cells), 1)
    # What is drawn of items alone is drawn of the few cells that they stand in.
    generator = np.random.default_rng(0)
    if count == len(names):
        drawn = generator.multinomial(count, by_group.sum(0) / count, size=RESAMPLES)
    else:
        weights = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        drawn = weights @ by_group
    counts = drawn.reshape(RESAMPLES, size, size)
    tail = 50 * (1 - confidence)
    scores: dict[str, Callable[[Counts], NDArray[np.float64]]] = {
        "macro_f1": _macro_f1, "matthews": _matthews,
    }  # fmt: skip
    return {
        name: tuple(float(v) for v in np.percentile(score(counts), [tail, 100 - tail]))  # type: ignore[misc]
        for name, score in scores.items()
    }
