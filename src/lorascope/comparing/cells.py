"""Groups a study's trials into cells: one configuration, its seeds, and their scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lorascope.adapters.kinds import unmerged
from lorascope.comparing.costs import Spent, cell_costs, measured_peak
from lorascope.comparing.estimates import cell_estimate
from lorascope.comparing.item_columns import JoinedItems, columns_of, join_columns
from lorascope.comparing.results import (
    CellKey,
    CellScore,
    Estimate,
    Measure,
    SeedTrial,
    cell_of,
)
from lorascope.config import APART, Cost
from lorascope.counting.scored_batches import SCORED_SPLITS
from lorascope.files.kept import Key, kept, map_kept
from lorascope.files.revisions import MADE_BY
from lorascope.records import EvaluationRecord, ItemTable, Status, Study, TrialKey, TrialRecord

MISSING = "missing"
BYTES_A_PARAMETER = 4
"""Of an adapter's file, which holds float32."""
NOT_NEEDED = "not needed"
NOT_SCORED = "not scored"
NO_EVALUATION = "no evaluation record"
VARIANTS = "variants"


@dataclass(frozen=True)
class Scored:
    """One seed of a cell that has scores; the bare base has no trial."""

    seed: int | None
    trial: TrialRecord | None
    evaluation: EvaluationRecord

    @cached_property
    def other_settings(self) -> dict[str, object]:
        """`other_settings` of its trial."""
        return other_settings(self.trial.key, self.trial.settings) if self.trial else {}


@dataclass(frozen=True)
class CellData:
    """All records of one cell."""

    cell: CellKey
    scored: tuple[Scored, ...]
    """By seed."""
    declared: tuple[SeedTrial, ...]
    """By seed; empty for a bare base."""

    @property
    def complete(self) -> bool:
        needed = [trial for trial in self.declared if trial.status != NOT_NEEDED]
        return len(self.scored) == max(1, len(needed))


def variants(study: Study) -> dict[str, str]:
    """Trial's name -> other settings in which trials of one mode and method differ, as 'steps=200'.

    Without them two trainings of one adapter would pass for two seeds of one configuration. What
    differs from mode to mode only is left to the confounds of their comparison. A missing trial
    has its declared settings. Found once for a study.
    """
    if VARIANTS not in study.made_of_items:
        study.made_of_items[VARIANTS] = _variants(study)
    found: dict[str, str] = study.made_of_items[VARIANTS]
    return found


def _variants(study: Study) -> dict[str, str]:
    keys = {trial.trial: trial.key for trial in study.trials} | study.missing | study.unneeded
    told = {trial.trial: trial.settings for trial in study.trials} | study.missing_settings
    settings = {name: other_settings(key, told.get(name, {})) for name, key in keys.items()}
    found: dict[str, str] = {}
    for method in {key.method for key in keys.values()}:
        ours = {name: settings[name] for name, key in keys.items() if key.method == method}
        varied = _varied(ours, keys)
        found |= {name: _variant(values, varied) for name, values in ours.items()}
    return found


def _varied(
    settings: Mapping[str, Mapping[str, object]], keys: Mapping[str, TrialKey]
) -> list[str]:
    known = dict.fromkeys(name for values in settings.values() for name in values)
    different = {
        (name, keys[trial].quant, str(values.get(name)))
        for trial, values in settings.items()
        for name in known
        if values
    }
    counts = Counter((name, quant) for name, quant, _ in different)
    return [name for name in known if any(n == name and c > 1 for (n, _), c in counts.items())]


def _variant(settings: Mapping[str, object], varied: Sequence[str]) -> str:
    if varied and not settings:
        return "settings unknown"
    told = ((name.rpartition(".")[2], settings.get(name)) for name in varied)
    # What is not set needs no word: it is set in the others.
    return ", ".join(f"{name}={value}" for name, value in told if value is not None)


def other_settings(key: TrialKey, settings: Mapping[str, object]) -> dict[str, object]:
    """A trial's settings that its key does not name, as 'train.steps' -> 200, its code apart."""
    flat: dict[str, object] = {}
    for group, values in settings.items():
        if group in MADE_BY:
            continue
        inner = values if isinstance(values, Mapping) else {"": values}
        flat.update({f"{group}.{name}".rstrip("."): value for name, value in inner.items()})
    named = key.named()
    return {name: value for name, value in flat.items() if name not in named}


def base_cell(quant: str) -> CellKey:
    """The bare base of a mode."""
    return CellKey(quant, base=True)


def study_measure(study: Study) -> Measure:
    """Accuracy where every scored test item was right or wrong, else the loss."""
    tests = [e.splits["test"] for e in study.evaluations if "test" in e.splits]
    judged = bool(tests) and all(score.accuracy is not None for score in tests)
    return Measure.accuracy if judged else Measure.loss_nats


def gather(study: Study, measure: Measure) -> dict[CellKey, CellData]:
    """Every cell that a record or a declaration names: bases first, then by mode and dials."""
    evaluations = {(e.trial_identity, e.form): e for e in study.evaluations if e.trial_identity}
    trials: dict[CellKey, list[tuple[SeedTrial, Scored | None]]] = {}
    variant = variants(study)
    for trial in study.trials:
        finished = trial.status is Status.completed
        for form in study.forms_of(trial.trial):
            cell = cell_of(trial.key, variant[trial.trial], form)
            evaluation = evaluations.get((trial.identity, form)) if finished else None
            declared = _seed_trial(trial, cell, evaluation, measure)
            scored = None
            if evaluation and declared.test is not None:
                scored = Scored(trial.key.seed, trial, evaluation)
            trials.setdefault(cell, []).append((declared, scored))
    for name, key in study.missing.items():
        lost = SeedTrial(name, key.seed, MISSING, "no record", None, None)
        for form in study.forms_of(name):
            trials.setdefault(cell_of(key, variant[name], form), []).append((lost, None))
    for name, key in study.unneeded.items():
        unneeded = SeedTrial(name, key.seed, NOT_NEEDED, None, None, None)
        for form in study.forms_of(name):
            trials.setdefault(cell_of(key, variant[name], form), []).append((unneeded, None))
    cells = [_base(study, footprint.quant) for footprint in study.footprints]
    for cell, members in trials.items():
        members.sort(key=lambda member: member[0].seed)
        scored_seeds = tuple(scored for _, scored in members if scored)
        cells.append(CellData(cell, scored_seeds, tuple(declared for declared, _ in members)))
    order = [footprint.quant for footprint in study.footprints]
    cells.sort(key=lambda data: (_place(order, data.cell.quant), data.cell))
    return {data.cell: data for data in cells}


@dataclass(frozen=True)
class Compared:
    """The configurations of a study, with their records and their scores."""

    study: Study
    measure: Measure
    cells: Mapping[CellKey, CellData]
    scores: Mapping[CellKey, CellScore]

    @classmethod
    def of(cls, study: Study, measure: Measure, cells: Mapping[CellKey, CellData]) -> Compared:
        """With the scores of `cells`."""
        scores = map_kept(lambda data: score_cell(data, study, measure), [*cells.values()])
        return cls(study, measure, cells, dict(zip(cells, scores, strict=True)))

    @property
    def margin(self) -> float:
        """The rule's, in the unit of the measure."""
        rule = self.study.decide
        return rule.margin_accuracy if self.measure is Measure.accuracy else rule.margin_loss_nats


def _place(order: Sequence[str], quant: str) -> int:
    return order.index(quant) if quant in order else len(order)


def _base(study: Study, quant: str) -> CellData:
    found = [e for e in study.evaluations if e.quant == quant and e.trial_identity is None]
    return CellData(base_cell(quant), tuple(Scored(None, None, e) for e in found[:1]), ())


def never_served(cell: CellKey) -> str | None:
    """Why a configuration has no such form; None where it has, and for a method that only records
    know."""
    return None if cell.serve == APART else unmerged(cell.method)


def _seed_trial(
    trial: TrialRecord, cell: CellKey, evaluation: EvaluationRecord | None, measure: Measure
) -> SeedTrial:
    status, reason = trial.status.value, trial.reason
    if trial.status is Status.completed and evaluation is None:
        status, reason = NOT_SCORED, never_served(cell) or NO_EVALUATION
    scores = {
        split: score.accuracy if measure is Measure.accuracy else score.completion_loss_nats
        for split, score in (evaluation.splits.items() if evaluation else ())
        if split in SCORED_SPLITS
    }
    if any(value is not None and not math.isfinite(value) for value in scores.values()):
        status, reason, scores = NOT_SCORED, "its loss is not finite", {}
    return SeedTrial(
        trial.trial, trial.key.seed, status, reason, scores.get("validation"), scores.get("test")
    )


def join_scored(scored: Sequence[Scored], study: Study, split: str) -> JoinedItems | None:
    """The items of several evaluations; None where one has none, or nothing is common."""
    tables = [columns_of(study, one.evaluation.identity, split) for one in scored]
    known = [table for table in tables if table is not None]
    return join_columns(known) if known and len(known) == len(tables) else None


def items_key(kind: Key, scored: Sequence[Scored], study: Study, split: str) -> Key | None:
    """Names what is `kind` of the items that `join_scored` joins; None where it is not known of all
    which file holds exactly these."""
    tables = [study.items.get(one.evaluation.identity, {}).get(split) for one in scored]
    digests = [table.sha256 if isinstance(table, ItemTable) else None for table in tables]
    return None if None in digests else (*kind, *digests)


def score_cell(data: CellData, study: Study, measure: Measure) -> CellScore:
    """Estimates with intervals over items and seeds, and the cost."""
    stored = next((f for f in study.footprints if f.quant == data.cell.quant), None)
    trials = [scored.trial for scored in data.scored if scored.trial]
    served = [s.evaluation.served for s in data.scored if s.evaluation.served]
    spent = Spent(
        trials, stored, study.decide, data.cell.base, data.cell.serve != APART, tuple(served)
    )
    return CellScore(
        cell=data.cell,
        trials=data.declared,
        accuracy=estimate_of(data.scored, study, "test", Measure.accuracy),
        loss=estimate_of(data.scored, study, "test", Measure.loss_nats),
        validation=estimate_of(data.scored, study, "validation", measure),
        costs=cell_costs(spent),
        peak_measured=any(measured_peak(trial) is not None for trial in trials),
        complete=data.complete,
    )


def estimate_of(
    scored: Sequence[Scored], study: Study, split: str, measure: Measure
) -> Estimate | None:
    """Mean over items and seeds, as `cell_estimate`; None where there is nothing to estimate."""

    def made() -> Estimate | None:
        joined = join_scored(scored, study, split)
        if joined is None or (measure is Measure.accuracy and joined.correct is None):
            return None
        return cell_estimate(joined, measure)

    return kept(items_key(("estimate", measure), scored, study, split), made)


def declared_cost(cell: CellKey, compared: Compared) -> float:
    """What is known of the rule's cost before anything is trained: bytes, from shapes."""
    study, trials = compared.study, compared.cells[cell].declared
    adapter = study.adapter_parameters[trials[0].trial] * BYTES_A_PARAMETER
    if study.decide.cost is Cost.adapter_bytes:
        return adapter
    return adapter + next(one.total_bytes for one in study.footprints if one.quant == cell.quant)
