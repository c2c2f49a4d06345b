"""Right-or-wrong answers whose true accuracies are known.

They come from a latent normal score: item (or cluster) + configuration's own item effect + flicker
from seed to seed + shift of the whole seed, right above zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
ITEMS = 400
CLUSTERS = np.repeat(np.arange(80), 5)
PARETO_SHAPE = 1.5
"""Pareto's shape of unequal clusters' sizes: the largest holds 10 to 50 % of the items."""


def pareto_clusters(draw: int) -> NDArray[np.int64]:
    """Labels [items] of clusters with Pareto's sizes; `draw` seeds them."""
    rng, sizes = np.random.default_rng(draw), [0]
    while sum(sizes) < ITEMS:
        sizes.append(int(np.ceil(rng.pareto(PARETO_SHAPE))))
    return np.repeat(np.arange(len(sizes)), sizes)[:ITEMS]


@dataclass(frozen=True)
class World:
    """A model of how scores come about; standard deviations on the latent scale, where difficulty
    has 1.4."""

    seeds: int = 1
    clustered: bool = False
    pareto: int | None = None
    """Draw of the clusters' sizes; None: all have five."""
    own: float = 0.5
    """A configuration's own effect on an item (on a cluster, if clustered): stays over seeds."""
    flicker: float = 0.3
    """Effect of a seed on an item."""
    seed: float = 0.0
    """Effect of a whole training: 0.05 moves a difference of accuracies by 1.6 points from seed to
    seed, 0.1 by 3.3, 0.2 by 6.5."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        if not self.clustered:
            return None
        return CLUSTERS if self.pareto is None else pareto_clusters(self.pareto)

    @property
    def spread(self) -> float:
        """Standard deviation of one latent score, which makes the true accuracies known."""
        return float(np.sqrt(2 + self.own**2 + self.flicker**2 + self.seed**2))

    def draw(
        self, rng: np.random.Generator, sets: int, accuracies: tuple[float, ...]
    ) -> Iterator[Floats]:
        """`sets` times right answers [configurations, seeds, items] at the true `accuracies`."""
        shape = (len(accuracies), self.seeds, ITEMS)
        means = self.spread * norm.ppf(accuracies)[:, None, None]
        for _ in range(sets):
            difficulty = rng.normal(size=ITEMS) + self._shared(rng, (1,))[0]
            latent = means + difficulty + self.own * self._shared(rng, shape[:1])[:, None]
            latent = latent + self.seed * rng.normal(size=(*shape[:2], 1))
            yield (latent + self.flicker * rng.normal(size=shape) > 0).astype(np.float64)

    def _shared(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        labels = self.labels
        if labels is None:
            return rng.normal(size=(*shape, ITEMS))
        return rng.normal(size=(*shape, int(labels.max()) + 1))[..., labels]


def inside(rate: float, band: tuple[float, float]) -> None:
    assert band[0] <= rate <= band[1], f"rate {rate:.4f}"
