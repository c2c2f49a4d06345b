"""F1 and Matthews correlation against scikit-learn, and their intervals against many samples."""

from __future__ import annotations

import numpy as np
import pytest
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
