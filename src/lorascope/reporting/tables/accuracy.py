"""One row for every mode's bare base and every declared trial, the failed and missing ones too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lorascope.comparing.cells import (
    NOT_NEEDED,
    Scored,
    base_cell,
    estimate_of,
    never_served,
    variants,
)
from lorascope.comparing.results import CellKey, Estimate, Measure, cell_of
from lorascope.config import APART
from lorascope.records import EvaluationRecord, SplitScore, Status, Study, TrialRecord
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
from lorascope.reporting.tables.table import Column, Table, of

BASE = "base"
"""Status of the row of a mode's bare base."""
MISSING = "missing"
"""Status of a declared trial or base that has no record."""
NOT_EVALUATED = "no evaluation record"
NO_RECORD = "no record"
ROWS = "rows of scores"


@dataclass(frozen=True)
class AccuracyRow:
    """Scores of one trial or base. Shares lie in 0 to 1; None is unknown."""

    cell: CellKey
    seed: int | None = None
    test: SplitScore | None = None
    validation: SplitScore | None = None
    estimate: Estimate | None = None
    """Accuracy on test items with its interval over items, or their clusters."""
    chance: float | None = None
    """What guessing gets right, where items are choices."""
    trainable_parameters: int | None = None
    stored_bytes: int | None = None
    """Of the base in this mode, without adapters; of a merged model, all that is stored."""
    status: str = Status.completed.value
    reason: str | None = None
    trial: str = BASE
    evaluation: str | None = None
    """Identity of the scores, by which the study has their items."""

    @property
    def scored(self) -> bool:
        return self.test is not None and math.isfinite(self.test.completion_loss_nats)


def modes(study: Study) -> list[str]:
    """Every quantization mode that some record names, in the order of the footprints."""
    named = [footprint.quant for footprint in study.footprints]
    named += [trial.key.quant for trial in study.trials]
    named += [evaluation.quant for evaluation in study.evaluations]
    return list(dict.fromkeys(named))


def accuracy_rows(study: Study) -> list[AccuracyRow]:
    """Mode by mode: the base, trials by targets, dials and seed, and the missing ones. Found once
    for a study."""
    if ROWS not in study.made_of_items:
        study.made_of_items[ROWS] = _rows(study)
    found: list[AccuracyRow] = study.made_of_items[ROWS]
    return found


def _rows(study: Study) -> list[AccuracyRow]:
    stored = {footprint.quant: footprint.total_bytes for footprint in study.footprints}
    recorded, variant = trial_rows(study), variants(study)
    scores: dict[tuple[str | None, str], EvaluationRecord] = {
        (e.trial_identity, e.form): e for e in study.evaluations
    }
    rows: list[AccuracyRow] = []
    for quant in modes(study):
        mode = [_base_row(study, quant)]
        mode += [
            _trial_row(
                replace(row, cell=replace(row.cell, serve=form)),
                scores.get((row.trial.identity, form)),
                study,
            )
            for row in recorded
            if row.cell.quant == quant
            for form in study.forms_of(row.trial.trial)
        ]
        mode += [
            AccuracyRow(
                cell_of(key, variant[name], form),
                key.seed,
                status=MISSING,
                reason=NO_RECORD,
                trial=name,
            )
            for name, key in study.missing.items()
            if key.quant == quant
            for form in study.forms_of(name)
        ]
        mode += [
            AccuracyRow(cell_of(key, variant[name], form), key.seed, status=NOT_NEEDED, trial=name)
            for name, key in study.unneeded.items()
            if key.quant == quant
            for form in study.forms_of(name)
        ]
        rows += [
            # What a form weighs that is not scored is unknown.
            row
            if row.stored_bytes or row.cell.serve != APART
            else replace(row, stored_bytes=stored.get(quant))
            for row in mode
        ]
    return rows


@dataclass(frozen=True)
class TrialRow:
    """A trial that has a record, and its configuration."""

    cell: CellKey
    trial: TrialRecord


def trial_rows(study: Study) -> list[TrialRow]:
    """Mode by mode, in the order of the accuracy table."""
    order, variant = modes(study), variants(study)
    trials = sorted(study.trials, key=lambda t: (order.index(t.key.quant), *trial_order(t)))
    return [TrialRow(cell_of(trial.key, variant[trial.trial]), trial) for trial in trials]


def trial_order(trial: TrialRecord) -> tuple[object, ...]:
    """Sorts the trials of one mode: switches before numbers, so that curves stay together."""
    key = trial.key
    dials = sorted(key.dials.items(), key=lambda dial: not isinstance(dial[1], bool))
    return key.method, key.targets, dials, key.seed, trial.trial


def by_validation_score(rows: Iterable[AccuracyRow]) -> list[AccuracyRow]:
    """Trials with a finite validation score, best first; the test split never decides.

    The score is accuracy where rows can be right or wrong, else completion loss. Ties go to fewer
    trainable parameters, then to the smaller stored base.
    """

    def order(row: AccuracyRow) -> tuple[float, float, float, str]:
        accuracy = row.validation.accuracy if row.validation else None
        score = _loss(row) if accuracy is None else -accuracy
        return score, _or_last(row.trainable_parameters), _or_last(row.stored_bytes), row.trial

    return sorted((r for r in rows if not r.cell.base and math.isfinite(_loss(r))), key=order)


def _loss(row: AccuracyRow) -> float:
    return row.validation.completion_loss_nats if row.validation else math.inf


def _or_last(value: float | None) -> float:
    """For sorting: the unknown comes last."""
    return math.inf if value is None else value


def accuracy_table(rows: Sequence[AccuracyRow]) -> Table[AccuracyRow]:
    """Of what `accuracy_rows` gives. Adapter settings that do not vary are left to the CSV."""
    return Table(
        (
            *cell_columns(row.cell for row in rows),
            Column("seed", "Seed"),
            Column("items", "Items", units.count, get=of("test", "items")),
            Column("accuracy", "Accuracy %", units.percent, get=of("test", "accuracy")),
            Column("standard_error", "± SE", units.percent, get=of("estimate", "standard_error")),
            Column("interval", "95 % interval", Measure.accuracy.interval, in_csv=False,
                   get=of("estimate", "ends")),
            Column("interval_low", "Low %", in_text=False, get=of("estimate", "low")),
            Column("interval_high", "High %", in_text=False, get=of("estimate", "high")),
            Column("chance", "Chance %", units.percent),
            Column("completion_loss_nats", "Loss nats", units.nats,
                   get=of("test", "completion_loss_nats")),
            Column("validation_accuracy", "Validation %", units.percent,
                   get=of("validation", "accuracy")),
            Column("validation_loss_nats", "Validation nats", units.nats,
                   get=of("validation", "completion_loss_nats")),
            Column("trainable_parameters", "Trainable", units.count, in_text=False),
            Column("stored_bytes", "Stored base", units.size, in_text=False),
            Column("status", "Status", right=False),
            Column("reason", "Reason", right=False),
            Column("trial", "Trial", right=False),
        ),
        rows,
    )  # fmt: skip


def _base_row(study: Study, quant: str) -> AccuracyRow:
    for record in study.evaluations:
        if record.quant == quant and record.trial_identity is None:
            return _with_scores(AccuracyRow(base_cell(quant), status=BASE), record, study)
    return AccuracyRow(base_cell(quant), status=MISSING, reason=NOT_EVALUATED)


def _trial_row(row: TrialRow, evaluation: EvaluationRecord | None, study: Study) -> AccuracyRow:
    trial = row.trial
    found = AccuracyRow(
        row.cell,
        trial.key.seed,
        trainable_parameters=trial.result.trainable_parameters if trial.result else None,
        status=trial.status.value,
        reason=trial.reason,
        trial=trial.trial,
    )
    if evaluation is not None:
        served = evaluation.served
        found = replace(found, stored_bytes=served.total_bytes if served else None)
        return _with_scores(found, evaluation, study)
    return replace(found, reason=trial.reason or never_served(row.cell) or NOT_EVALUATED)


def _with_scores(row: AccuracyRow, record: EvaluationRecord, study: Study) -> AccuracyRow:
    test = record.splits.get("test")
    validation = record.splits.get("validation")
    row = replace(row, test=test, validation=validation, evaluation=record.identity)
    if test is None or test.accuracy is None:
        return row
    chance = study.data.splits["test"].chance_accuracy
    return replace(row, chance=chance, estimate=_estimate(record, study))


def _estimate(record: EvaluationRecord, study: Study) -> Estimate | None:
    """The same as in the tables of configurations, for one seed; several tables show it."""
    place = "estimate", record.identity
    if place not in study.made_of_items:
        study.made_of_items[place] = _estimated(record, study)
    found: Estimate | None = study.made_of_items[place]
    return found


def _estimated(record: EvaluationRecord, study: Study) -> Estimate | None:
    return estimate_of([Scored(None, None, record)], study, "test", Measure.accuracy)
