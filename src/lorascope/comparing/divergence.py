"""KL divergence between the next-token distributions of two scored models."""

from __future__ import annotations

import math
from functools import lru_cache
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
    log_p, log_q = _read(reference), _read(subject)
    if log_p.shape != log_q.shape:
        return None
    p = np.exp(log_p)
    # Where p is 0 the term is 0, whatever q is.
    log_ratio = np.subtract(log_p, log_q, where=p > 0, out=np.zeros_like(p))
    mean = float((p * log_ratio).sum(axis=1).mean())
    return max(0.0, mean) if math.isfinite(mean) else None


@lru_cache(maxsize=8)
def _read(path: Path) -> NDArray[np.float64]:
    try:
        return np.load(path, allow_pickle=False).astype(np.float64)  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path}: not readable as token distributions ({error}). Delete {path.parent} and run "
            "`lorascope evaluate` again."
        ) from error
