"""Tests that are looked at several times: what each look may spend of the error, and its bound.

At look k an estimate has the information I_k = 1 / variance, and t_k = I_k / I_last of what the
last look has. Its z values are normal with correlation sqrt(t_j / t_k) for j < k, as increments of
information are independent (Jennison and Turnbull, Group Sequential Methods, 2000, chapter 3). A
spending function says how much of the error may be spent up to t (Lan and DeMets, Biometrika 70,
1983); the bound c_k is the one at which the chance of crossing at look k, having crossed at none
before, is what is newly spent. It is found by integrating over the paths that have not crossed
(Armitage, McPherson and Rowe, JRSS A 132, 1969).

Bounds are one-sided: what stops a test for futility never adds to the error, and is not reckoned
with. Spread that few seeds have shown makes estimates other than normal: what is held against a
look's level is then the p value of its own test (the significance level approach, Jennison and
Turnbull, section 3.8), whose error is simulated, not proved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from lorascope.statistics.brent import brent_root
from lorascope.statistics.clusters import Floats

NODES = 400
"""Places at which the z values that have not crossed are known."""
LOWEST = -12.0
"""The z value below which there are none."""
LEAST_STEP = 0.002
"""New information below this share of all leaves z as it was, closer than the nodes can tell. A
look that brings no more is reckoned as one of its own (Bonferroni), whose bound is higher."""
NO_BOUND = 38.0
"""A z value that nothing crosses: the bound where nothing may be spent."""

Spending = Callable[[float, float], float]
"""(share of information, error) -> the error that may be spent by then."""


def obrien_fleming(share: float, error: float) -> float:
    """Little early, most at the end: 2 - 2 Phi(z_{error / 2} / sqrt(share)) (Lan and DeMets)."""
    return float(2 * ndtr(ndtri(error / 2) / math.sqrt(share)))


def pocock(share: float, error: float) -> float:
    """About the same at each look: error ln(1 + (e - 1) share) (Lan and DeMets)."""
    return error * math.log(1 + (math.e - 1) * share)


def bounds(
    shares: Sequence[float], error: float, spending: Spending = obrien_fleming
) -> tuple[float, ...]:
    """z values at which the looks at these shares of all information cross, one-sided.

    Args:
        shares: rising, above 0 and at most 1. Where the last is below 1, error is left for looks
            to come, which need not be known.

    Raises:
        ValueError: shares that do not rise, or lie elsewhere.
    """
    _require_rising(shares)
    spent = [spending(share, error) for share in shares]
    newly = tuple(np.diff(spent, prepend=0.0).tolist())
    looks = range(1, len(newly) + 1)
    return tuple(_looked(tuple(shares[:look]), newly[:look]) for look in looks)


def crossing(shares: Sequence[float], at: Sequence[float], drift: float = 0.0) -> list[float]:
    """The chance of crossing the bounds `at` at each look, and at none before it.

    `drift` is the mean of z at share 1: the power of a design, where it is not 0.
    """
    _require_rising(shares)
    paths, chances = None, []
    for share, bound in zip(shares, at, strict=True):
        chances.append(_beyond(bound, share, paths, drift))
        paths = _below(bound, share, paths, drift)
    return chances


@lru_cache(maxsize=4096)
def _looked(shares: tuple[float, ...], newly: tuple[float, ...]) -> float:
    """The bound of the last of these looks."""
    paths = _uncrossed(shares[:-1], newly[:-1])
    share, error = shares[-1], newly[-1]
    if paths is not None and share - paths.share < LEAST_STEP:
        bound = float(-ndtri(error)) if error > 0 else NO_BOUND
    else:
        bound = _bound(error, share, paths)
    return min(bound, NO_BOUND)


@lru_cache(maxsize=4096)
def _uncrossed(shares: tuple[float, ...], newly: tuple[float, ...]) -> _Paths | None:
    """What has crossed none of these looks: a further look at a test goes on from here."""
    if not shares:
        return None
    paths = _uncrossed(shares[:-1], newly[:-1])
    share = shares[-1]
    if paths is not None and share - paths.share < LEAST_STEP:
        return paths
    return _below(_looked(shares, newly), share, paths, 0.0)


def _bound(error: float, share: float, paths: _Paths | None) -> float:
    if _beyond(NO_BOUND, share, paths, 0.0) >= error:
        return NO_BOUND
    excess = lambda z: math.log(max(_beyond(z, share, paths, 0.0), 1e-320) / error)  # noqa: E731
    return brent_root(excess, LOWEST, NO_BOUND, 1e-10)


@dataclass(frozen=True)
class _Paths:
    """What has crossed no bound so far."""

    share: float
    """Of all information."""
    z: Floats
    """[nodes] at the last look."""
    chance: Floats
    """[nodes] density times the weight of a node in integrals."""


def _beyond(bound: float, share: float, paths: _Paths | None, drift: float) -> float:
    """The chance to lie beyond `bound` at the look at `share`, having crossed nothing before."""
    if paths is None:
        return float(ndtr(drift * math.sqrt(share) - bound))
    new = share - paths.share
    gap = bound * math.sqrt(share) - paths.z * math.sqrt(paths.share) - drift * new
    return float(paths.chance @ ndtr(-gap / math.sqrt(new)))


def _below(bound: float, share: float, paths: _Paths | None, drift: float) -> _Paths:
    """What has not crossed after the look at `share` either."""
    places, weights = _legendre()
    half = (bound - LOWEST) / 2
    z = LOWEST + half * (places + 1)
    if paths is None:
        density = _density(z - drift * math.sqrt(share))
    else:
        new = share - paths.share
        gap = z[:, None] * math.sqrt(share) - paths.z * math.sqrt(paths.share) - drift * new
        density = math.sqrt(share / new) * _density(gap / math.sqrt(new)) @ paths.chance
    return _Paths(share, z, density * weights * half)


def _density(z: Floats) -> Floats:
    density: Floats = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return density


@lru_cache(maxsize=1)
def _legendre() -> tuple[Floats, Floats]:
    places, weights = np.polynomial.legendre.leggauss(NODES)
    return places, weights


def _require_rising(shares: Sequence[float]) -> None:
    if any(not 0 < share <= 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise ValueError(f"shares={list(shares)}: must rise, above 0 and at most 1")
