"""How far two adapters' next-token distributions lie apart, as scoring kept them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import RecordError


def mean_divergence_nats(reference: Path, subject: Path) -> float | None:
    """Mean over completion tokens of KL(reference || subject), in nats.

    Sum over token groups of p (ln p - ln q), p the reference's (Kullback and Leibler 1951). Over
    groups it is a lower bound of that over tokens (see `token_distributions`). None where the two
    files hold other tokens or groups, or where it is not finite.

    Raises:
        RecordError: a file is damaged.
    """
    q, p = _read(subject), _read(reference)
    if p.log.shape != q.log.shape or not len(p.log):
        return None
    total = p.own_sum - _sum_of_products(p.share, q.log)
    if not math.isfinite(total):
        # Where p is 0 the term is 0, whatever q is.
        terms = np.zeros_like(p.share)
        np.subtract(p.log, q.log, where=p.share > 0, out=terms)
        total = float((p.share * terms).sum())
    mean = total / len(p.log)
    return max(0.0, mean) if math.isfinite(mean) else None


@dataclass(frozen=True)
class _Distributions:
    """[tokens, groups]"""

    log: NDArray[np.float64]

    @cached_property
    def share(self) -> NDArray[np.float64]:
        return np.exp(self.log)

    @cached_property
    def own_sum(self) -> float:
        """Sum of p ln p; not finite where some p is 0."""
        return _sum_of_products(self.share, self.log)


def _sum_of_products(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # By rows and without BLAS, whose threads wait for each other longer than one takes.
    return float(np.einsum("ij,ij->i", a, b).sum())


@lru_cache(maxsize=16)
def _read(path: Path) -> _Distributions:
    try:
        return _Distributions(np.load(path, allow_pickle=False).astype(np.float64))
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path}: not readable as token distributions ({error}). Delete {path.parent} and run "
            "`lorascope evaluate` again."
        ) from error
