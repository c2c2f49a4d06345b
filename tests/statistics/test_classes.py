"""F1 and Matthews correlation against scikit-learn, and their intervals against many samples."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, matthews_corrcoef

from lorascope.statistics.classes import class_intervals, confusion, macro_f1, matthews


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_equal_scikit_learns(classes: int) -> None:
    generator = np.random.default_rng(classes)
    for items in (5, 60):
        labels = generator.integers(0, classes, items)
        said = np.where(
            generator.random(items) < 0.6, labels, generator.integers(0, classes, items)
        )
        counts = confusion(list(zip(labels.tolist(), said.tolist(), strict=True)))
        assert macro_f1(counts) == pytest.approx(f1_score(labels, said, average="macro"))
        assert matthews(counts) == pytest.approx(matthews_corrcoef(labels, said))


def test_one_class_alone_correlates_with_nothing() -> None:
    assert matthews(confusion([(0, 1), (1, 1)])) == 0


def test_intervals_have_the_width_of_the_scores_of_new_samples() -> None:
    generator = np.random.default_rng(0)

    def sample() -> list[tuple[int, int]]:
        labels = generator.integers(0, 2, 300)
        said = np.where(generator.random(300) < 0.8, labels, 1 - labels)
        return list(zip(labels.tolist(), said.tolist(), strict=True))

    spread = np.std([matthews(confusion(sample())) for _ in range(300)])
    pairs = sample()
    low, high = class_intervals(pairs, [None] * 300)["matthews"]
    assert (high - low) / 2 / 1.96 == pytest.approx(spread, rel=0.15)
    # Items that stand in pairs are half as many draws.
    twice = class_intervals(pairs * 2, [str(number) for number in range(300)] * 2)["matthews"]
    assert twice[1] - twice[0] == pytest.approx(high - low, rel=0.15)


@pytest.mark.parametrize(("share", "right"), [(0.5, (0.99, 0.99)), (0.95, (0.99, 0.1))])
def test_intervals_cover_where_samples_hold_no_error_or_one_class_is_hardly_predicted(
    share: float, right: tuple[float, float]
) -> None:
    """Drawing the items again covers F1 in 39 and 72 % of samples, Matthews in 39 and 23 %."""
    table = np.array([[share * right[0], share * (1 - right[0])], [0, 0]])
    table[1] = (1 - share) * (1 - right[1]), (1 - share) * right[1]
    truth = {"macro_f1": f1_of(table), "matthews": matthews_of(table)}
    generator, covered = np.random.default_rng(1), dict.fromkeys(truth, 0)
    for _ in range(100):
        cells = generator.choice(4, size=50, p=table.ravel())
        found = class_intervals([(int(c) // 2, int(c) % 2) for c in cells], [None] * 50)
        for name, (low, high) in found.items():
            covered[name] += low <= truth[name] <= high
    assert min(covered.values()) >= 0.92 * 100


def f1_of(table: NDArray[np.float64]) -> float:
    """Macro F1 of a population: [class, prediction] -> share."""
    return float(np.mean([2 * table[c, c] / (table[c].sum() + table[:, c].sum()) for c in (0, 1)]))


def matthews_of(table: NDArray[np.float64]) -> float:
    (a, b), (c, d) = table
    return float((a * d - b * c) / np.sqrt((a + b) * (c + d) * (a + c) * (b + d)))


def test_all_right_or_one_class_alone_leaves_an_interval_with_the_score_in_it() -> None:
    for pairs, groups in (([(0, 0), (1, 1)] * 20, None), ([(0, 0), (1, 0)] * 20, 5)):
        told = [None if groups is None else str(n // groups) for n in range(40)]
        counts = confusion(pairs)
        for name, score in (("macro_f1", macro_f1(counts)), ("matthews", matthews(counts))):
            low, high = class_intervals(pairs, told)[name]
            assert low <= score <= high
            assert high - low > 0.05
    # A number that no item has or was given is no class.
    both = [[(0, 0), (last, last)] * 20 for last in (1, 6)]
    assert class_intervals(both[0], [None] * 40) == class_intervals(both[1], [None] * 40)


def test_where_all_are_wrong_intervals_stay_within_what_scores_can_be() -> None:
    for pairs in ([(0, 1), (1, 0)] * 10, [(0, 1), (1, 2), (2, 0)] * 3, [(0, 1)]):
        found = class_intervals(pairs, [None] * len(pairs))
        assert found["macro_f1"][0] == 0 < found["macro_f1"][1] <= 1
        assert -1 <= found["matthews"][0] < found["matthews"][1] <= 1
