"""Scores of predicted classes beside accuracy: F1 and Matthews correlation.

Both are made of counts of (class, prediction), and not of one number an item: their intervals come
from drawing tables of such counts.

Items that are drawn again, as the bootstrap does, never show an error that the sample lacks: where
all are right each draw is 1, and with 50 items of a true F1 of 0.99 a 95 % interval covered it in
39 % of samples. Formulas by the delta method (macro F1: Takahashi et al., Applied Intelligence 52,
2022) have no variance there either. What is drawn here is the table's distribution given the
sample: Dirichlet with the counts and one imagined item, divided equally among all cells (Perks,
1947; the overall prior of Berger, Bernardo and Sun, Bayesian Analysis 10, 2015). Without the
imagined item it is the Bayesian bootstrap (Rubin, Annals of Statistics 9, 1981).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64] | NDArray[np.float64]
"""[..., classes, classes]: items of a class (rows) that were given another (columns); weights of
such items where tables are drawn."""
DRAWS = 2000


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
    """Percentile intervals of macro F1 and Matthews correlation over drawn tables.

    Where classes have few items, both scores come out lower on average than the truth, and those of
    drawn tables lower again, by as much. The upper end makes up for it: it is raised by twice what
    the draws' mean lies below the score (and the lower one lowered where it lies above), within
    what scores can be. An end that would leave the score itself out, as where all are right, is
    moved to it.

    Args:
        groups: what an item shares with others, which then have one weight in a draw; None is the
            item alone.
    """
    # A class that no item has or was given has no part in the scores.
    seen, flat = np.unique(np.asarray(pairs), return_inverse=True)
    both = flat.reshape(-1, 2)
    tables = _drawn(both[:, 0] * len(seen) + both[:, 1], len(seen), groups)
    found, tail = confusion([(int(a), int(b)) for a, b in both]), 50 * (1 - confidence)
    scores: dict[str, tuple[Callable[[Counts], NDArray[np.float64]], float]] = {
        "macro_f1": (_macro_f1, 0.0), "matthews": (_matthews, -1.0),
    }  # fmt: skip
    ends = {}
    for name, (score, least) in scores.items():
        own = float(score(found))
        drawn = score(tables)
        low, high = (float(v) for v in np.percentile(drawn, [tail, 100 - tail]))
        off = 2 * (own - float(drawn.mean()))
        ends[name] = max(least, min(low, low + off, own)), min(1.0, max(high, high + off, own))
    return ends


def _drawn(cells: NDArray[np.int64], size: int, groups: Sequence[str | None]) -> Counts:
    """Tables [draws, size, size] of weights.

    Args:
        cells: of each item, row x size + column.
    """
    names = [f"item {n}" if group is None else group for n, group in enumerate(groups)]
    _, group_of, sizes = np.unique(names, return_inverse=True, return_counts=True)
    generator, imagined = np.random.default_rng(0), np.full(size * size, 1 / size**2)
    if len(sizes) == len(names):
        # Weights of items alone, summed in a cell, have this distribution.
        found = np.bincount(cells, minlength=size * size) + imagined
        drawn = generator.standard_gamma(found, size=(DRAWS, size * size))
    else:
        by_group = np.zeros((len(sizes), size * size))
        np.add.at(by_group, (group_of, cells), 1)
        drawn = generator.standard_exponential((DRAWS, len(sizes))) @ by_group
        # As large as the group of an item is on average.
        whole = float((sizes**2).sum() / sizes.sum())
        drawn += whole * generator.standard_gamma(imagined, size=drawn.shape)
    return drawn.reshape(DRAWS, size, size)
