"""Methods side by side: what each adapter trains and needs, whatever the mode."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lorascope.adapters.kinds import KINDS, method_of
from lorascope.comparing.confounds import learning_rate_of
from lorascope.comparing.costs import COSTS
from lorascope.comparing.results import CellKey, CellScore
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost
from lorascope.records import Study, TrialRecord
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table


@dataclass(frozen=True)
class MethodRow:
    """One adapter, in all modes that it was tried in."""

    cell: CellKey
    """In no mode."""
    learning_rate: float | None
    trainable_parameters: int | None
    percent_of_base: float | None
    adapter_bytes: float | None
    training_peak_bytes: float | None
    """Of the mode that needed most."""
    train_seconds: float | None
    """A trial by itself, in the mode that took longest."""
    merges: bool | None
    """None for a method that only records know."""
    modes: str

    @property
    def method(self) -> str:
        """As papers spell it."""
        return method_of(self.cell.method).label

    @property
    def size(self) -> str:
        """rank 8; empty where nothing sizes the adapter."""
        words = self.cell.size()
        return "" if words == self.method else words


def has_methods(cells: Iterable[CellKey]) -> bool:
    """Whether there are several, so that they compare."""
    return len({cell.method for cell in cells if not cell.base}) > 1


def method_rows(study: Study, findings: Findings) -> list[MethodRow]:
    """In the order of the configurations; none where all are of one method."""
    if not has_methods(score.cell for score in findings.cells):
        return []
    groups: dict[CellKey, list[CellScore]] = {}
    for score in findings.cells:
        if not score.cell.base:
            groups.setdefault(replace(score.cell.apart, quant=""), []).append(score)
    trials = {trial.trial: trial for trial in study.trials}
    return [
        _row(cell, scores, [trials[t.trial] for s in scores for t in s.trials if t.trial in trials],
             study.base.parameters)
        for cell, scores in groups.items()
    ]  # fmt: skip


def _row(
    cell: CellKey, scores: list[CellScore], trials: list[TrialRecord], base_parameters: int
) -> MethodRow:
    trained = [t.result.trainable_parameters for t in trials if t.result is not None]
    kind = KINDS.get(cell.method)
    return MethodRow(
        cell=cell,
        learning_rate=next(iter(filter(None, map(learning_rate_of, trials))), None),
        trainable_parameters=trained[0] if trained else None,
        percent_of_base=100 * trained[0] / base_parameters if trained else None,
        adapter_bytes=_most(scores, Cost.adapter_bytes),
        training_peak_bytes=_most(scores, Cost.training_peak_bytes),
        train_seconds=_most(scores, Cost.train_seconds),
        merges=None if kind is None else kind.unmergeable is None,
        modes=", ".join(dict.fromkeys(score.cell.quant for score in scores)),
    )


def _most(scores: list[CellScore], cost: Cost) -> float | None:
    return max((score.costs[cost] for score in scores if cost in score.costs), default=None)


def method_table(study: Study, findings: Findings) -> Table[MethodRow]:
    """A row an adapter."""
    rows = method_rows(study, findings)
    return Table(
        (
            Column("method", "Method", right=False),
            Column("targets", "Targets", right=False, get=lambda row: row.cell.targets),
            Column("size", "Size", right=False, get=lambda row: row.size or None),
            Column("variant", "Settings", right=False, get=lambda row: row.cell.variant or None),
            Column("learning_rate", "Learning rate", lambda rate: f"{rate:.3g}"),
            Column("trainable_parameters", "Trainable", units.count),
            Column("percent_of_base", "% of base", units.small_percent),
            Column("adapter_bytes", "Adapter file", units.size),
            Column("training_peak_bytes", COSTS[Cost.training_peak_bytes].header, units.size),
            Column("train_seconds", "Train s", units.seconds),
            Column("merges", "Merges", lambda merges: "yes" if merges else "no"),
            Column("modes", "Modes", right=False),
        ),
        rows,
    )  # fmt: skip
