"""The crossed analysis against scipy, statsmodels and its own definition written out."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from lorascope.statistics.accuracy import FlipDifference, accuracy_difference, accuracy_interval
from lorascope.statistics.clusters import Floats, group_sums, group_variances, small_sample
from lorascope.statistics.shares import PairedDifference, wilson_interval
from lorascope.statistics.two_way import two_way

CLUSTERS = np.repeat(np.arange(30), 4)


def _values(seeds: int, *, seed_sd: float = 0.5, item_sd: float = 1.0) -> Floats:
    rng = np.random.default_rng(seeds)
    values = 0.2 + seed_sd * rng.normal(size=(seeds, 1)) + item_sd * rng.normal(size=120)
    return np.asarray(values + rng.normal(size=(seeds, 120)))


def test_one_seed_of_single_items_is_the_t_test() -> None:
    values = _values(1)
    found, reference = two_way(values), ttest_1samp(values[0], 0)
    interval = reference.confidence_interval(0.95)
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_not_below(0.1) == pytest.approx(
        ttest_1samp(values[0], 0.1, alternative="greater").pvalue
    )
    assert found.p_not_above(0.3) == pytest.approx(
        ttest_1samp(values[0], 0.3, alternative="less").pvalue
    )


def test_one_seed_of_clusters_is_statsmodels_cluster_robust_mean() -> None:
    values = _values(1)[0] + np.repeat(np.random.default_rng(0).normal(size=30), 4)
    fit = sm.OLS(values, np.ones((120, 1))).fit(
        cov_type="cluster", cov_kwds={"groups": CLUSTERS, "df_correction": True}, use_t=True
    )
    found = two_way(values[None], clusters=CLUSTERS)
    # statsmodels' factor has (n - 1) / (n - k) besides K / (K - 1): 1 for a mean.
    assert found.standard_error == pytest.approx(float(fit.bse[0]), rel=1e-9)
    assert found.p_value == pytest.approx(float(fit.pvalues[0]), rel=1e-9)
    assert found.degrees == 29


def test_one_item_per_cluster_is_the_same_as_no_clusters() -> None:
    values = _values(3)
    assert two_way(values, clusters=np.arange(120)).standard_error == pytest.approx(
        two_way(values).standard_error
    )


def test_ratio_of_losses_is_linearised_at_its_estimate() -> None:
    rng = np.random.default_rng(3)
    tokens = rng.integers(1, 50, size=120).astype(float)
    losses = rng.gamma(2.0, size=120) * tokens
    found = two_way(losses[None], weights=tokens)
    rate = losses.sum() / tokens.sum()
    residual = (losses - rate * tokens) / tokens.mean()
    assert found.estimate == pytest.approx(rate)
    # Unequal tokens take a little more than the n / (n - 1) of equal ones.
    plain = residual.std(ddof=1) / np.sqrt(120)
    assert plain < found.standard_error < 1.005 * plain
    assert 70 < found.degrees < 119


def _bell_mccaffrey(
    design: Floats, values: Floats, labels: NDArray[np.int64]
) -> tuple[float, float]:
    """CR2's variance and degrees of freedom of a slope, by their definition on whole matrices:
    Pustejovsky and Tipton (Journal of Business and Economic Statistics 36, 2018), eq. 4 and 11."""
    n = values.size
    left_over = np.eye(n) - np.outer(design, design) / (design @ design)
    residuals, variance, columns = left_over @ values, 0.0, []
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        roots, vectors = np.linalg.eigh(left_over[np.ix_(mine, mine)])
        adjusted = vectors @ np.diag(roots**-0.5) @ vectors.T @ design[mine] / (design @ design)
        variance += float(adjusted @ residuals[mine]) ** 2
        columns.append(left_over[:, mine] @ adjusted)
    products = np.array(columns) @ np.array(columns).T
    return variance, float(np.trace(products) ** 2 / (products**2).sum())


def test_small_sample_is_bell_and_mccaffreys_where_units_of_weight_are_independent() -> None:
    """A mean of 60 items in clusters of 1 to 20, and a ratio as weighted least squares."""
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(9), [1, 1, 2, 2, 3, 6, 10, 15, 20])
    for weights in (np.ones(60), rng.integers(1, 50, size=60).astype(float)):
        totals = weights * (0.3 + rng.normal(size=9)[labels] + rng.normal(size=60))
        root = np.sqrt(weights)
        variance, degrees = _bell_mccaffrey(root, totals / root, labels)
        sizes = group_sums(weights, labels)
        small = small_sample(sizes, sizes)
        rest = group_sums(totals - totals.sum() / weights.sum() * weights, labels)
        assert small.degrees == pytest.approx(degrees)
        assert (small.factors * rest**2).sum() / weights.sum() ** 2 == pytest.approx(variance)
        assert degrees < 6


def test_small_sample_is_unbiased_with_satterthwaites_degrees_under_any_variances() -> None:
    rng = np.random.default_rng(5)
    weights, variances = rng.pareto(1.2, size=(2, 30)) + 1
    small = small_sample(weights, variances)
    residual = np.eye(30) - np.outer(weights, np.ones(30)) / weights.sum()
    form = residual.T @ np.diag(small.factors) @ residual @ np.diag(variances)
    assert np.trace(form) == pytest.approx(variances.sum())
    assert small.degrees == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form))


def test_groups_of_one_size_keep_their_number_less_one_as_degrees() -> None:
    labels = np.repeat(np.arange(30), 4)
    residuals = _values(1) - _values(1).mean()
    equal = small_sample(np.full(30, 4.0), group_variances(residuals, np.ones(120), labels))
    assert equal.degrees == 29
    nearly = np.full(30, 4.0) + 1e-9 * np.arange(30)
    assert small_sample(nearly, nearly).degrees == pytest.approx(29)
    assert small_sample(nearly, nearly).factors == pytest.approx(equal.factors)


def test_a_better_seed_is_not_taken_for_flicker_where_clusters_are_unequal() -> None:
    """A seed moves a large cluster's total by more: that is no item by seed part."""
    labels = np.repeat(np.arange(6), [1, 1, 2, 6, 10, 100])
    values = np.array([[0.0], [0.5], [1.0]]) + np.random.default_rng(6).normal(size=120)
    part = two_way(values, clusters=labels).components
    assert part.item_by_seed == pytest.approx(0, abs=1e-20)
    assert part.seed == pytest.approx(0.25)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_variance_is_items_plus_seeds_minus_both(seeds: int) -> None:
    """Cameron, Gelbach and Miller's three cluster-robust variances, each with its own factor."""
    values = _values(seeds, seed_sd=2.0)
    found = two_way(values)
    rest = (values - values.mean()) / values.size
    of_items = (rest.sum(0) ** 2).sum() * 120 / 119
    of_seeds = (rest.sum(1) ** 2).sum() * seeds / (seeds - 1)
    double = rest - rest.mean(0) - rest.mean(1)[:, None] + rest.mean()
    of_both = (double**2).sum() * values.size / (119 * (seeds - 1))
    assert found.standard_error**2 == pytest.approx(of_items + of_seeds - of_both)
    part = found.components
    assert part.items_alone == pytest.approx(of_items)
    assert part.item is not None
    assert part.item_by_seed is not None
    assert part.seed is not None
    assert part.seed_spread_raw == pytest.approx(values.mean(1).std(ddof=1))
    assert part.item + (part.seed + part.item_by_seed) / seeds == pytest.approx(
        found.standard_error**2
    )
    assert seeds - 1 <= found.degrees < 119


def test_interval_is_no_narrower_than_items_alone_when_seeds_agree() -> None:
    values = np.repeat(_values(1), 3, axis=0)
    found = two_way(values)
    assert found.standard_error == pytest.approx(two_way(values[:1]).standard_error)
    assert found.components.seed == found.components.seed_raw == 0.0
    assert found.components.item_standard_error == pytest.approx(found.standard_error)


def test_components_come_back_on_average() -> None:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(400):
        values = 0.1 * rng.normal(size=(4, 1)) + 0.5 * rng.normal(size=200)
        part = two_way(values + rng.normal(size=(4, 200))).components
        assert part.item is not None
        assert part.item_by_seed is not None
        assert part.seed_raw is not None
        found.append((part.item, part.item_by_seed, part.seed_raw - part.item_by_seed))
    assert np.mean(found, axis=0) == pytest.approx([0.25 / 200, 1 / 200, 0.01], rel=0.1)


def test_one_seed_says_that_seed_spread_is_unknown() -> None:
    part = two_way(_values(1)).components
    assert (part.seed, part.seed_spread_raw, part.item, part.item_by_seed) == (None,) * 4


def test_dominant_seeds_leave_seeds_less_one_degrees_of_freedom() -> None:
    found = two_way(_values(3, seed_sd=100.0))
    assert found.degrees == pytest.approx(2, abs=0.01)
    assert found.high - found.low == pytest.approx(
        2 * student.ppf(0.975, found.degrees) * found.standard_error
    )


def test_values_without_variation_are_their_own_estimate() -> None:
    found = two_way(np.zeros((2, 10)))
    assert (found.low, found.high, found.p_value, found.p_not_below(0.0)) == (0, 0, 1, 0.5)
    assert found.p_not_below(-0.01) == 0


@pytest.mark.parametrize(
    ("values", "options", "cause"),
    [
        (np.zeros(5), {}, "seeds, items"),
        (np.zeros((2, 5)), {"weights": np.zeros(5)}, "weights"),
        (np.zeros((2, 5)), {"clusters": [1, 1, 1]}, "one label per item"),
        (np.zeros((2, 5)), {"clusters": [1] * 5}, "2 or more"),
        (np.full((2, 5), np.nan), {}, "finite"),
    ],
)
def test_input_that_cannot_be_is_refused(
    values: Floats, options: dict[str, Floats], cause: str
) -> None:
    with pytest.raises(ValueError, match=cause):
        two_way(values, **options)


def test_accuracy_of_one_seed_and_single_items_is_wilsons() -> None:
    right = np.array([[1.0] * 30 + [0.0] * 10])
    assert accuracy_interval(right) == wilson_interval(0.75, 40)


def test_accuracy_in_clusters_is_wider_and_near_the_t_interval() -> None:
    right = np.repeat(np.random.default_rng(0).random(80) < 0.6, 5)[None].astype(float)
    labels = np.repeat(np.arange(80), 5)
    low, high = accuracy_interval(right, labels)
    found = two_way(right, clusters=labels)
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.01)
    assert high - low > 2 * np.subtract(*accuracy_interval(right)[::-1])


def test_all_right_in_clusters_counts_each_cluster_once() -> None:
    low, high = accuracy_interval(np.ones((1, 100)), np.repeat(np.arange(20), 5))
    assert high == 1.0
    assert low == pytest.approx(20 / (20 + student.ppf(0.975, 19) ** 2))


def test_difference_of_accuracies_picks_the_test_that_fits() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.random((2, 3, 100)) < 0.6).astype(float)
    labels = np.repeat(np.arange(20), 5)
    assert isinstance(accuracy_difference(a[:1], b[:1]), PairedDifference)
    assert isinstance(accuracy_difference(a, b), FlipDifference)
    assert isinstance(accuracy_difference(a[:1], b[:1], labels), FlipDifference)
    same = accuracy_difference(a, a, labels)
    assert (same.estimate, same.p_value) == (0.0, 1.0)
    assert same.p_not_below(-0.03) > 0.05, "20 clusters cannot show 3 points"
