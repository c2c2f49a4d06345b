"""Whole sweeps whose truths are known: modes x ranks x seeds, scored on simulated items.

A training's score is its configuration's truth plus the luck of its seed: shared by the modes of a
rank, shared by the ranks of a mode, its own, or common to all trainings of the seed. Items are
losses or right answers, drawn anew for validation and test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from lorascope.config import DecideConfig
from lorascope.records import EvaluationRecord, ItemResult, SplitScore, Study
from tests.comparing.simulated_scores import Floats
from tests.study_factory import Trial, make_study

Truth = Callable[[str, int], float]


@dataclass(frozen=True)
class Sweep:
    """A model of how a sweep's scores come about. Luck is a standard deviation in shares, or in
    nats."""

    seeds: int
    modes: tuple[str, ...] = ("fp16", "int8", "nf4")
    ranks: tuple[int, ...] = (4, 8, 16)
    by_rank: float = 0.0
    """Luck of a rank and seed, the same in all modes: its first weights, the order of rows."""
    by_mode: float = 0.0
    """Luck of a mode and seed, the same at all ranks."""
    own: float = 0.0
    """Luck of each training."""
    by_seed: float = 0.0
    """Luck of a seed, the same for all trainings."""
    heavy: bool = False
    """Losses of items, and luck, from t with 3 degrees of freedom."""
    accuracy: bool = False
    """Right answers in place of losses."""
    items: int = 60
    item_noise: float = 0.05
    """Spread of a loss from training to training, in nats."""
    gain: float = 0.4
    """Gain of training over the bare base."""

    def studies(self, sweeps: int, truth: Truth, rule: DecideConfig, draw: int) -> Iterator[Study]:
        """`sweeps` studies in which configurations differ from the base's score by gain + truth,
        more being better."""
        rng = np.random.default_rng(draw)
        trials = [
            Trial(mode, rank, seed=seed, accuracy=0.7 if self.accuracy else None)
            for mode in self.modes
            for rank in self.ranks
            for seed in range(self.seeds)
        ]
        blank = replace(
            make_study(trials, 0.3 if self.accuracy else None, items=2, validation_items=2),
            decide=rule,
        )
        for _ in range(sweeps):
            yield self._scored(blank, truth, rng)

    def _scored(self, blank: Study, truth: Truth, rng: np.random.Generator) -> Study:
        luck = self._luck(rng)
        common = {split: self._noise(rng, 1.0) for split in ("validation", "test")}
        evaluations, items = [], {}
        for evaluation in blank.evaluations:
            key = evaluation.key
            shift = 0.0
            if key is not None:
                rank = int(key.dials["rank"])
                place = self.modes.index(key.quant), self.ranks.index(rank), key.seed
                shift = self.gain + truth(key.quant, rank) + luck[place]
            scored = {split: self._items(split, shift, common[split], rng) for split in common}
            items[evaluation.identity] = scored
            evaluations.append(_summed(evaluation, scored))
        return replace(blank, evaluations=evaluations, items=items)

    def _luck(self, rng: np.random.Generator) -> Floats:
        """[modes, ranks, seeds]"""
        modes, ranks, seeds = len(self.modes), len(self.ranks), self.seeds
        return np.asarray(
            self.by_rank * self._draw(rng, (1, ranks, seeds))
            + self.by_mode * self._draw(rng, (modes, 1, seeds))
            + self.own * self._draw(rng, (modes, ranks, seeds))
            + self.by_seed * self._draw(rng, (1, 1, seeds))
        )

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Luck of standard deviation 1."""
        if self.heavy:
            return np.asarray(rng.standard_t(3, shape) / np.sqrt(3))
        return np.asarray(rng.normal(size=shape))

    def _noise(self, rng: np.random.Generator, spread: float) -> Floats:
        return spread * self._draw(rng, (self.items,))

    def _items(
        self, split: str, shift: float, common: Floats, rng: np.random.Generator
    ) -> list[ItemResult]:
        own = rng.random(self.items) if self.accuracy else self._noise(rng, self.item_noise)
        if self.accuracy:
            # Half of an answer is the item's difficulty, which all share.
            level = np.clip(0.3 + shift, 0.0, 1.0)
            hardness = (np.argsort(np.argsort(common)) + 0.5) / self.items
            right = np.where(own < 0.8, hardness, rng.random(self.items)) < level
            return [
                ItemResult(f"{split}{n}", "p", "t", bool(one), 1.0, 1)
                for n, one in enumerate(right)
            ]
        losses = 3.0 + 0.3 * common - shift + own
        return [
            ItemResult(f"{split}{n}", "p", "t", None, float(loss), 1)
            for n, loss in enumerate(losses)
        ]


def _summed(record: EvaluationRecord, items: dict[str, list[ItemResult]]) -> EvaluationRecord:
    splits = {}
    for split, rows in items.items():
        judged = rows[0].correct is not None
        accuracy = float(np.mean([bool(row.correct) for row in rows])) if judged else None
        loss = float(np.mean([row.loss_nats for row in rows]))
        splits[split] = SplitScore(len(rows), accuracy, 0.01 if judged else None, loss)
    return replace(record, splits=splits)
