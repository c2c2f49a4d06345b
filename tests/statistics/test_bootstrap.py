"""The paired bootstrap against scipy's, and its p values against its own interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, norm
from scipy.stats import t as student

from lorascope.statistics.bootstrap import BootstrapDifference, paired_loss_difference
from lorascope.statistics.clusters import Floats, group_sums, resampled_sums
from lorascope.statistics.two_way import two_way

CLUSTERS = np.repeat(np.arange(20), 6)


def _losses() -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 60, size=120).astype(float)
    b = tokens * rng.gamma(3.0, 0.4, size=120)
    return b + tokens * rng.normal(0.03, 0.15, size=120), b, tokens


def _ratio(difference: Floats, tokens: Floats, axis: int = -1) -> Floats:
    return np.asarray(difference.sum(axis) / tokens.sum(axis))


@pytest.mark.parametrize("clusters", [None, CLUSTERS])
def test_interval_agrees_with_scipys_percentiles_at_the_expanded_level(
    clusters: Floats | None,
) -> None:
    a, b, tokens = _losses()
    found = paired_loss_difference(a, b, tokens, clusters=clusters, resamples=19_999)
    sums = group_sums(np.stack([a - b, tokens]), clusters)
    groups = sums.shape[1]
    level = 1 - 2 * norm.sf(np.sqrt(groups / (groups - 1)) * student.ppf(0.975, groups - 1))
    reference = bootstrap(
        (sums[0], sums[1]), _ratio, paired=True, vectorized=True, n_resamples=19_999,
        confidence_level=level, method="percentile", rng=np.random.default_rng(1),
    )  # fmt: skip
    interval, error = reference.confidence_interval, reference.standard_error
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.06 * error)
    assert found.standard_error == pytest.approx(error, rel=0.02)
    assert found.estimate == pytest.approx((a - b).sum() / tokens.sum())
    assert found.groups == groups


def test_it_agrees_with_the_t_interval_where_that_is_good() -> None:
    a, b, tokens = _losses()
    found, straight = paired_loss_difference(a, b, tokens), two_way([a - b], weights=tokens)
    width = straight.high - straight.low
    assert (found.low, found.high) == pytest.approx((straight.low, straight.high), abs=0.04 * width)
    assert found.p_value == pytest.approx(straight.p_value, abs=0.01)


def test_p_values_and_interval_are_one_statement() -> None:
    a, b, tokens = _losses()
    for shift in np.linspace(-0.08, 0.04, 61):
        found = paired_loss_difference(a + shift * tokens, b, tokens, resamples=1999)
        assert (found.low > 0 or found.high < 0) == (found.p_value <= 0.05)


def test_margin_test_has_its_direction() -> None:
    a, b, tokens = _losses()
    found = paired_loss_difference(a, b, tokens)
    assert found.estimate > 0, "a is the worse one"
    assert found.p_not_above(0.2) < 0.001 < 0.99 < found.p_not_below(0.2)
    assert found.p_not_above(found.high + 1e-9) == pytest.approx(0.025, abs=0.002)
    assert found.p_not_below(found.low - 1e-9) == pytest.approx(0.025, abs=0.002)


def test_same_seed_gives_the_same_and_another_nearly_the_same() -> None:
    a, b, tokens = _losses()
    one, two = paired_loss_difference(a, b, tokens), paired_loss_difference(a, b, tokens)
    assert (one.low, one.high, one.p_value) == (two.low, two.high, two.p_value)
    other = paired_loss_difference(a, b, tokens, seed=1)
    assert other.low != one.low
    assert other.low == pytest.approx(one.low, abs=0.1 * one.standard_error)


def test_equal_losses_differ_by_nothing() -> None:
    _, b, tokens = _losses()
    found: BootstrapDifference = paired_loss_difference(b, b, tokens)
    assert (found.estimate, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_input_that_cannot_be_is_refused() -> None:
    a, b, tokens = _losses()
    with pytest.raises(ValueError, match="items"):
        paired_loss_difference(a, b[:-1], tokens)
    with pytest.raises(ValueError, match="tokens"):
        paired_loss_difference(a, b, 0 * tokens)
    with pytest.raises(ValueError, match="group"):
        paired_loss_difference(a, b, tokens, clusters=np.zeros(120))
    with pytest.raises(ValueError, match="resamples"):
        paired_loss_difference(a, b, tokens, resamples=20)


def test_resamples_draw_every_group_equally_often() -> None:
    counts = next(resampled_sums(np.eye(7), 20_000, 0, room=20_000))
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.03)
    assert counts.var(axis=0) == pytest.approx(np.full(7, 6 / 7), rel=0.05)


def test_group_sums_follow_the_labels() -> None:
    sums = group_sums([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]], ["x", "y", "x", "x"])
    assert sums.tolist() == [[8.0, 2.0], [3.0, 1.0]]
