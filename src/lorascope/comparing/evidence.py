"""What a study's validation items show of its configurations with so many seeds.

Items are joined once for all evaluations. Where the rule leaves the reference open, one cluster of
items in `CHOOSING` chooses it, and judges nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from lorascope.comparing.cells import Compared
from lorascope.comparing.estimates import (
    Tested,
    cell_estimate,
    compare_joined,
    compare_with_base,
    seed_components,
)
from lorascope.comparing.item_columns import JoinedItems, join
from lorascope.comparing.pairs import SIGNIFICANT
from lorascope.comparing.reference import best_base, reference_choices
from lorascope.comparing.results import CellKey, Estimate, Measure
from lorascope.records import ItemResult
from lorascope.statistics.error_parts import CHOOSING
from lorascope.statistics.two_way import Components


@dataclass(frozen=True)
class Panel:
    """Items scored under many evaluations, joined once."""

    items: JoinedItems
    rows: Mapping[str, int]
    """Name of a trial, or of a bare base's mode -> its evaluation."""

    def of(self, names: Sequence[str]) -> JoinedItems:
        """The evaluations of these, in this order."""
        rows = [self.rows[name] for name in names]
        right = self.items.correct
        return replace(
            self.items,
            correct=None if right is None else right[rows],
            loss_nats=self.items.loss_nats[rows],
        )


def panel_of(compared: Compared, chooses: bool) -> Panel | None:
    """The validation items that choose the reference, or that judge; None where there are none.

    Where only one configuration can be the reference, all judge.
    """
    is_open = len(reference_choices(compared)) > 1
    names, tables = [], []
    for data in compared.cells.values():
        for one in data.scored:
            rows = compared.study.items.get(one.evaluation.identity, {}).get("validation", [])
            if is_open:
                rows = [item for item in rows if _chooses(item) is chooses]
            kept = rows if is_open or not chooses else ()
            if kept:
                names.append(one.trial.trial if one.trial else data.cell.quant)
                tables.append(kept)
    joined = join(tables) if tables else None
    return Panel(joined, {name: row for row, name in enumerate(names)}) if joined else None


def items_of(compared: Compared, cell: CellKey) -> tuple[int, int]:
    """Validation items of a cell, and how many of them judge; 0 where it has no score."""
    scored = compared.cells[cell].scored
    items = compared.study.items[scored[0].evaluation.identity] if scored else {}
    rows = items.get("validation", [])
    if len(reference_choices(compared)) < 2:
        return len(rows), len(rows)
    return len(rows), sum(not _chooses(item) for item in rows)


def _chooses(item: ItemResult) -> bool:
    """By the cluster's name alone, so that more data move no item from one side to the other."""
    name = item.shared or item.item
    return hashlib.sha256(name.encode()).digest()[0] % CHOOSING == 0


@dataclass
class Evidence:
    """Configurations held against each other on the items that judge."""

    compared: Compared
    judging: Panel | None
    components: dict[tuple[CellKey, CellKey, int], Components | None] = field(default_factory=dict)
    """Of the difference of two cells with so many seeds."""

    @property
    def measure(self) -> Measure:
        """Of the study."""
        return self.compared.measure

    def trials(self, cell: CellKey, seeds: int) -> list[str]:
        return [trial.trial for trial in self.compared.cells[cell].declared[:seeds]]

    def difference(self, cell: CellKey, reference: CellKey, seeds: int) -> Tested | None:
        """The first so many seeds of a cell minus those of the reference."""
        joined = self.joined(cell, reference, seeds)
        tested = compare_joined(joined, self.measure, self.compared.margin) if joined else None
        self.components[cell, reference, seeds] = tested.two_way.components if tested else None
        return tested

    def joined(self, cell: CellKey, reference: CellKey, seeds: int) -> JoinedItems | None:
        names = [*self.trials(cell, seeds), *self.trials(reference, seeds)]
        known = self.judging is not None and self.judging.rows.keys() >= set(names)
        return self.judging.of(names) if self.judging and known else None

    def components_between(
        self, seeds: Mapping[CellKey, int], reference: CellKey
    ) -> list[tuple[CellKey, CellKey, Components]]:
        """Of every two of these cells and the reference, on the seeds that they share."""
        places = [(cell, reference, count) for cell, count in seeds.items()]
        places += [(a, b, min(seeds[a], seeds[b])) for a, b in combinations(sorted(seeds), 2)]
        shown = []
        for place in places:
            if place not in self.components:
                joined = self.joined(*place)
                self.components[place] = seed_components(joined, self.measure) if joined else None
            if parts := self.components[place]:
                shown.append((place[0], place[1], parts))
        return shown

    def beats_base(self, cell: CellKey, seeds: int, tests: int) -> bool:
        """Whether these trainings are shown to beat the best bare base of their bytes or fewer.

        Without a score of one nothing is known, which the decision says.
        """
        base, names = self._base_of(cell), self.trials(cell, seeds)
        if base is None or self.judging is None or not self.judging.rows.keys() >= set(names):
            return True
        joined = self.judging.of([*names, base])
        tested = compare_with_base(joined, self.measure)
        if tested is None:
            return True
        gain, p = tested
        return tests * p < SIGNIFICANT and harm(gain, self.measure) < 0

    def _base_of(self, cell: CellKey) -> str | None:
        if self.judging is None:
            return None
        found = {
            quant: -harm(estimate, self.measure)
            for quant in {one.quant for one in self.compared.study.footprints}
            if quant in self.judging.rows
            if (estimate := cell_estimate(self.judging.of([quant]), self.measure))
        }
        return best_base(cell.quant, self.compared.study, found)


def harm(difference: Estimate, measure: Measure) -> float:
    """By how much a difference, or a score, is the worse one."""
    return -measure.sign * difference.value
