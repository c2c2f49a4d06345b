"""Simulated sweeps: right answers of every declared trial, whose true accuracies are known.

A training's accuracy is the configuration's truth plus the luck of its seed; an item is answered by
its difficulty, which all trainings share, or by chance. `Course` replays the settling on them as it
does on records: only where the answers come from is another place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lorascope.comparing.cells import Compared, gather
from lorascope.comparing.course import Course
from lorascope.comparing.evidence import Evidence, Panel
from lorascope.comparing.item_columns import JoinedItems
from lorascope.comparing.results import CellKey, Measure
from lorascope.comparing.settling import Settling
from lorascope.config import DecideConfig
from tests.study_factory import Trial, make_study

Floats = NDArray[np.float64]
Truth = Callable[[CellKey], float]
RULE = DecideConfig(reference_quant="fp16", reference_rank=16)


@dataclass(frozen=True)
class World:
    """How a sweep's answers come about. Spreads are standard deviations of a share."""

    modes: tuple[str, ...] = ("fp16", "int8", "nf4")
    ranks: tuple[int, ...] = (4, 8, 16)
    seeds: int = 6
    own: float = 0.01
    """Luck of each training."""
    by_rank: float = 0.0
    """Luck of a rank and seed, the same in all modes."""
    heavy: bool = False
    """Luck from t with 3 degrees of freedom."""
    items: int = 1000
    together: int = 1
    """Items in a cluster, of one difficulty."""
    kept: float = 0.8
    """Share of answers that an item's difficulty decides."""
    level: float = 0.7
    base: float = 0.3

    def declared(self, rule: DecideConfig) -> Compared:
        """Every trial trained and scored; the answers are drawn apart."""
        trials = [
            Trial(mode, rank, seed=seed, accuracy=self.level)
            for mode in self.modes
            for rank in self.ranks
            for seed in range(self.seeds)
        ]
        study = make_study(trials, self.base, items=2, validation_items=2)
        # So few that the mode decides what is cheap, then the rank.
        parameters = {one.trial: 10 * int(one.key.dials["rank"]) for one in study.trials}
        study = replace(study, decide=rule, adapter_parameters=parameters)
        return Compared(study, Measure.accuracy, gather(study, Measure.accuracy), {})

    def panels(self, compared: Compared, truth: Truth, sweeps: int, draw: int) -> Iterator[Panel]:
        """The answers of so many sweeps."""
        rng = np.random.default_rng(draw)
        for _ in range(sweeps):
            yield self._panel(compared, truth, rng)

    def _panel(self, compared: Compared, truth: Truth, rng: np.random.Generator) -> Panel:
        shared = self.by_rank * self._luck(rng, (len(self.ranks), self.seeds))
        levels: dict[str, float] = {}
        for cell, data in compared.cells.items():
            if cell.base:
                levels[cell.quant] = self.base
            for trial in data.declared:
                place = self.ranks.index(int(dict(cell.dials)["rank"])), trial.seed
                luck = shared[place] + self.own * float(self._luck(rng, ()))
                levels[trial.trial] = self.level + truth(cell) + luck
        clusters = np.arange(self.items) // self.together
        hardness = rng.random(clusters[-1] + 1)[clusters]
        shape = (len(levels), self.items)
        answered = np.where(rng.random(shape) < self.kept, hardness, rng.random(shape))
        right = (answered < np.array(list(levels.values()))[:, None]).astype(np.float64)
        items = JoinedItems(
            right, np.ones(shape), np.ones(self.items), clusters if self.together > 1 else None
        )
        return Panel(items, {name: row for row, name in enumerate(levels)})

    def _luck(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        if self.heavy:
            return np.asarray(rng.standard_t(3, shape) / np.sqrt(3))
        return np.asarray(rng.normal(size=shape))


def settled(compared: Compared, panel: Panel) -> Settling:
    """The course on these answers; the reference is named, so that all items judge."""
    return Course(Evidence(compared, panel), None).run()


def is_wrong(settling: Settling, truth: Truth, margin: float) -> bool:
    """Whether something ships that is truly worse than the reference by the margin or more."""
    shipped, reference = settling.accepted, settling.reference
    if shipped is None or reference is None:
        return False
    return truth(reference) - truth(shipped) >= margin - 1e-9
