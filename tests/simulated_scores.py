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


@dataclass(frozen=True)
class World:
    """How scores come about; standard deviations on the latent scale, where difficulty has 1.4."""

    seeds: int = 1
    clustered: bool = False
    own: float = 0.5
    """A configuration's own effect on an item (on a cluster, if clustered): stays over seeds."""
    flicker: float = 0.3
    """Of an item from seed to seed."""
    seed: float = 0.0
    """Of a whole training: 0.05 moves a difference of accuracies by 1.6 points from seed to seed,
    0.1 by 3.3, 0.2 by 6.5."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return CLUSTERS if self.clustered else None

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
        if self.clustered:
            return rng.normal(size=(*shape, 80))[..., CLUSTERS]
        return rng.normal(size=(*shape, ITEMS))


def inside(rate: float, band: tuple[float, float]) -> None:
    assert band[0] <= rate <= band[1], f"rate {rate:.4f}"
