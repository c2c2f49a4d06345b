"""Items that belong together, such as several questions about one person, summed into one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def group_sums(values: ArrayLike, clusters: ArrayLike | None) -> Floats:
    """Sums of `values` [..., items] within each cluster: [..., groups].

    `clusters` [items] holds one label per item; groups come in the labels' sorted order. None
    says that every item is a cluster of its own.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("values must be finite: leave an item without a result out of both sides")
    if clusters is None:
        return array
    labels = np.asarray(clusters)
    if labels.shape != array.shape[-1:]:
        raise ValueError(
            f"clusters has shape {labels.shape} for {array.shape[-1]} items: one label per item"
        )
    order = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[order], return_index=True)
    sums: Floats = np.add.reduceat(array[..., order], starts, axis=-1)
    return sums


def resampled_counts(groups: int, resamples: int, seed: int | tuple[int, ...]) -> Floats:
    """How often each group is drawn in each bootstrap resample: [resamples, groups].

    Each row is `groups` draws with replacement. The same seed gives the same rows.
    """
    draws = np.random.default_rng(seed).integers(groups, size=(resamples, groups))
    draws += np.arange(resamples)[:, None] * groups
    counts = np.bincount(draws.ravel(), minlength=resamples * groups)
    return counts.reshape(resamples, groups).astype(np.float64)
