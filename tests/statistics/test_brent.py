"""Roots against scipy's, to the last bit."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from scipy.optimize import brentq
from scipy.special import stdtr

from lorascope.statistics.brent import brent_root

FUNCTIONS: list[Callable[[float, float], float]] = [
    lambda x, root: x - root,
    lambda x, root: (x - root) ** 3 + 0.01 * (x - root),
    lambda x, root: math.exp(x) - math.exp(root),
    lambda x, root: math.atan(1000 * (x - root)),
    lambda x, root: float(stdtr(7.5, x) - stdtr(7.5, root)),
    lambda x, root: float(x > root) - 0.5,
    lambda x, root: 1e-200 * (x - root),
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_root_has_the_bits_of_scipys(function: Callable[[float, float], float]) -> None:
    random_numbers = random.Random(0)
    for _ in range(300):
        root = random_numbers.uniform(-3, 3)
        ends = root - random_numbers.uniform(0, 4), root + random_numbers.uniform(0, 4)
        start, end = random_numbers.sample(ends, 2)
        tolerance = 10 ** random_numbers.uniform(-13, -3)

        def shifted(x: float, root: float = root) -> float:
            return function(x, root)

        assert brent_root(shifted, start, end, tolerance) == brentq(
            shifted, start, end, xtol=tolerance
        )


def test_ends_of_one_sign_and_what_is_no_number_are_refused() -> None:
    with pytest.raises(ValueError, match="no change of sign"):
        brent_root(lambda x: x, 1.0, 2.0)
    with pytest.raises(ValueError, match="no change of sign"):
        brent_root(lambda x: math.nan, 1.0, 2.0)
    with pytest.raises(ArithmeticError, match="within 100 steps"):
        brent_root(lambda x: math.nan if -1 < x < 1 else x, -1.0, 1.0)
