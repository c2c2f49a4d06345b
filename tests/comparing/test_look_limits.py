"""The limit of a look's own test: what is drawn beside the margin says what the p value decided."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from benchmarks.settle.worlds import RULE, Truth, World, settled
from lorascope.comparing import estimates
from lorascope.comparing.estimates import compare_joined, with_seed_pool
from lorascope.comparing.item_columns import JoinedItems
from lorascope.comparing.results import CellKey, Measure
from lorascope.statistics.seed_noise import SeedNoise

MARGIN = RULE.margin_accuracy
LEVELS = (0.3, 0.05, 1e-3, 1e-6)


def at_the_margin(cell: CellKey) -> float:
    return 0.0 if cell.quant == "fp16" else -0.02


def by_rank(cell: CellKey) -> float:
    return {4: -0.5, 8: -0.04, 16: 0.0}[int(dict(cell.dials)["rank"])]


@pytest.mark.parametrize("truth", [at_the_margin, by_rank])
@pytest.mark.parametrize("world", [World(), World(items=900, together=3, heavy=True)])
def test_limit_lies_inside_the_margin_exactly_where_the_look_accepts(
    world: World, truth: Truth
) -> None:
    compared = world.declared(RULE)
    looks = [
        look
        for panel in world.panels(compared, truth, sweeps=3, draw=7)
        for look in settled(compared, panel).looks
    ]
    inside = [look.tested.limit(look.level, -1) > -MARGIN for look in looks]
    assert inside == [look.p_within < look.level for look in looks]
    assert any(inside)
    assert not all(inside)


def losses(seeds: int, spread: float) -> estimates.Tested:
    """Of two configurations, the first worse by 0.02 nats."""
    rng = np.random.default_rng(seeds)
    luck = spread * rng.normal(size=(2 * seeds, 1))
    values = rng.gamma(4.0, 0.1, 80) + luck + 0.05 * rng.normal(size=(2 * seeds, 80))
    values[:seeds] += 0.02
    joined = JoinedItems(None, values, np.ones(80), np.arange(80) // 4)
    found = compare_joined(joined, Measure.loss_nats, MARGIN)
    assert found is not None
    return found


@pytest.mark.parametrize("level", LEVELS)
def test_limit_of_losses_is_that_of_t(level: float) -> None:
    found = losses(3, 0.01)
    crossed = found.two_way
    reach = student.isf(level, crossed.degrees) * crossed.standard_error
    assert found.limit(level, 1) == pytest.approx(crossed.estimate + reach, abs=1e-9)
    assert found.limit(level, -1) == pytest.approx(crossed.estimate - reach, abs=1e-9)


@pytest.mark.parametrize("seeds", [2, 4])
@pytest.mark.parametrize("level", LEVELS)
def test_limit_has_the_spread_of_the_pool_in_it(seeds: int, level: float) -> None:
    pool = SeedNoise(raw=4e-4, flicker=1e-5, degrees=3.0)
    found = losses(seeds, 0.001)
    pooled = with_seed_pool(found, pool, Measure.loss_nats, MARGIN)
    limit = pooled.limit(level, 1)
    assert limit > found.limit(level, 1) > found.difference.value
    assert pooled.two_way.p_not_above(limit) == pytest.approx(level, rel=1e-6)


def test_limit_is_the_farthest_share_where_no_truth_is_ruled_out() -> None:
    right = np.array([[1.0, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]])
    found = compare_joined(
        JoinedItems(right, np.ones((4, 4)), np.ones(4), None), Measure.accuracy, MARGIN
    )
    assert found is not None
    assert (found.limit(1e-9, -1), found.limit(1e-9, 1)) == (-1.0, 1.0)
