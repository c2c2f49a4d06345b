"""The rows of the LoRA paper's table that a study has trained, beside what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lorascope.adapters.kinds import method_of
from lorascope.comparing.results import CellKey, CellScore, Estimate, Measure
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost, Targets
from lorascope.counting.printed_tables import LORA_PAPER, PaperRow
from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table

SIZED_BY = {
    "Fine-tune": ("full", ""), "BitFit": ("bitfit", ""), "PrefixEmbed": ("prompt", "tokens"),
    "PrefixLayer": ("prefix_layer", "tokens"), "Adapter-H": ("bottleneck", "size"),
    "LoRA": ("lora", "rank"),
}  # fmt: skip
"""The paper's method -> kind of adapter, and the dial that has the row's size."""
ADAPTED = {1: {"v_proj"}, 2: {Targets.q_v.value}, 4: {Targets.attention.value}}
"""LoRA's matrices a layer -> targets."""
EIGHTH = "PrefixEmbed"
"""The method that a small study may train with an eighth of the printed tokens: hundreds of them in
front of a sentence cost minutes a step on a CPU."""


@dataclass(frozen=True)
class TrainedRow:
    """One row of print, and the configuration of this study that is it."""

    printed: PaperRow
    score: CellScore | None
    """None where the study has none."""
    trainable_parameters: int | None

    @property
    def accuracy(self) -> Estimate | None:
        """On test items; None where rows cannot be right or wrong."""
        return self.score.accuracy if self.score else None

    @property
    def loss(self) -> Estimate | None:
        """In nats, on test items."""
        return self.score.loss if self.score else None


def paper_rows(study: Study, findings: Findings) -> list[TrainedRow]:
    """All rows of print, of the first mode that the study has; none unless it has rows of several
    methods."""
    trained = {t.trial: t.result.trainable_parameters for t in study.trials if t.result is not None}
    rows = [
        trained_row(printed, [s for s in findings.cells if not s.cell.base], trained)
        for printed in LORA_PAPER
    ]
    methods = {row.printed.method for row in rows if row.score is not None}
    return rows if len(methods) > 1 else []


def trained_row(
    printed: PaperRow, scores: list[CellScore], trained: Mapping[str, int]
) -> TrainedRow:
    """A row of print with the configuration that is it.

    Args:
        trained: trainable parameters of each trial, by name.
    """
    found = [score for score in scores if is_row(printed, score.cell)]
    # Of several the one with the fewest settings beside the paper's, which `here` says.
    score = min(found, key=lambda own: len(own.cell.variant), default=None)
    counts = [trained[t.trial] for t in score.trials if t.trial in trained] if score else []
    return TrainedRow(printed, score, counts[0] if counts else None)


def is_row(printed: PaperRow, cell: CellKey) -> bool:
    """Whether a configuration is a row of print, whatever its model."""
    kind, dial = SIZED_BY[printed.method]
    if cell.method != kind or (printed.matrices and cell.targets not in ADAPTED[printed.matrices]):
        return False
    sizes = {printed.size, printed.size // 8 if printed.method == EIGHTH else printed.size}
    return not dial or cell.dial(dial) in sizes


def paper_rows_table(study: Study, findings: Findings) -> Table[TrainedRow]:
    """A row of print a row."""
    return Table(
        (
            Column("method", "Method", right=False, get=lambda row: row.printed.method),
            Column("setting", "Setting", right=False, get=lambda row: row.printed.setting),
            Column("printed_millions", "GPT-3 175B, printed (M)", lambda value: f"{value:,.1f}",
                   get=lambda row: row.printed.printed_millions),
            Column("here", "Trained here", right=False, get=here),
            Column("trainable_parameters", "Parameters here", units.count),
            Column("accuracy", "Accuracy %", units.percent, get=lambda row: _value(row.accuracy)),
            Column("interval", "95 % interval", Measure.accuracy.interval, in_csv=False,
                   get=lambda row: _ends(row.accuracy)),
            Column("completion_loss_nats", "Loss nats", units.nats,
                   get=lambda row: _value(row.loss)),
            Column("seeds", "Seeds", get=lambda row: len(row.score.trials) if row.score else None),
            Column("train_seconds", "Train s", units.seconds, get=_seconds),
        ),
        paper_rows(study, findings),
    )  # fmt: skip


def here(row: TrainedRow) -> str | None:
    """The configuration of this study, with what it has beside the paper's settings."""
    if row.score is None:
        return None
    words = [method_of(row.score.cell.method).label, row.score.cell.size(), row.score.cell.variant]
    return ", ".join(dict.fromkeys(filter(None, words)))


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _ends(estimate: Estimate | None) -> tuple[float, float] | None:
    return None if estimate is None else (estimate.low, estimate.high)


def _seconds(row: TrainedRow) -> float | None:
    return row.score.costs.get(Cost.train_seconds) if row.score else None
