"""What machines read beside the tables: the decision, `dvc metrics`, and the training losses."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from lorascope.comparing.cells import NOT_NEEDED, variants
from lorascope.comparing.results import CellKey
from lorascope.comparing.ruling import Decision
from lorascope.config import APART
from lorascope.records import DialValue, Study
from lorascope.records.made_of import made_of
from lorascope.reporting.tables.accuracy import (
    AccuracyRow,
    accuracy_rows,
    by_validation_score,
    modes,
)
from lorascope.reporting.tables.table import of

Metrics = dict[str, float | int | str | bool | None]


def metrics_json(study: Study, decision: Decision) -> str:
    """The decision; mode by mode the base's test scores and those of the trial that validates
    best; the merge.
    """
    rows = accuracy_rows(study)
    summary: dict[str, Metrics] = {"decision": decision_metrics(decision)}
    summary |= {
        quant: _mode([row for row in rows if row.cell.quant == quant]) for quant in modes(study)
    }
    if study.merge is not None:
        summary["merge"] = {name: getattr(study.merge, name) for name in MERGE}
    known = {
        name: {key: value for key, value in metrics.items() if value is not None}
        for name, metrics in _finite(summary).items()
    }
    return json.dumps(known, indent=2, allow_nan=False) + "\n"


def losses_csv(study: Study) -> str:
    """One line a logged point of every trial that has a result."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    variant = variants(study)
    dials = list(dict.fromkeys(name for trial in study.trials for name in trial.key.dials))
    writer.writerow(
        ["trial", "quant", "method", "targets", *dials, "seed", "variant", "step", "loss_nats"]
    )
    for trial in sorted(study.trials, key=lambda trial: trial.trial):
        key = trial.key
        values = [key.dials.get(name) for name in dials]
        named = (key.quant, key.method, key.targets, *values, key.seed, variant[trial.trial])
        for point in trial.result.losses if trial.result else []:
            writer.writerow([trial.trial, *named, point.step, f"{point.loss_nats:.6g}"])
    return stream.getvalue()


def _mode(rows: Sequence[AccuracyRow]) -> Metrics:
    base = next((row for row in rows if row.cell.base), None)
    # Each trial apart on its base where it is scored so, else in its other forms.
    apart = {row.trial for row in rows if row.cell.serve == APART and row.scored}
    rows = [row for row in rows if row.cell.serve == APART or row.trial not in apart]
    scored = {row.trial for row in rows if row.scored and not row.cell.base}
    wanted = {row.trial for row in rows if row.status != NOT_NEEDED and not row.cell.base}
    best = next(iter(by_validation_score(rows)), None)
    sizes = best.cell.shown() if best else []
    accuracy, loss = of("test", "accuracy"), of("test", "completion_loss_nats")
    return {
        "base_accuracy": accuracy(base),
        "base_loss_nats": loss(base),
        "best_trial": best.trial if best else None,
        **{f"best_{dial.name}": value for dial, value in sizes if dial.is_axis},
        "best_accuracy": accuracy(best),
        "best_loss_nats": loss(best),
        "scored_trials": len(scored),
        "unscored_trials": len(wanted - scored),
    }


MERGE = (
    "trial", "passed", "prediction_agreement", "largest_logit_difference", "adapter_loss_nats",
    "merged_loss_nats",
)  # fmt: skip
"""What metrics.json says of the merge."""


DECISION = (
    "settled", "seeds", "holds_for", "rule", "measure", "margin", "reference",
    "reference_is_declared", "none_beats_base", "gains", "recommended", "trial", "test", "fresh",
    "projection", "open", "unknown", "candidates",
)  # fmt: skip
"""What decision.json says of a decision, in this order."""


def decision_json(study: Study, decision: Decision) -> str:
    """The rule, its answer and every candidate, with numbers as they are; and of which records they
    are made."""
    made = made_of(study.decide, study.trials, study.evaluations, study.merge, study.served)
    content = {**decision_content(decision), "made_of_sha256": made}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def decision_content(decision: Decision) -> dict[str, Any]:
    """What decision.json says of the decision, as JSON's own values."""
    content = {name: _plain(getattr(decision, name)) for name in DECISION}
    content |= {
        "open": [_plain(row.cell) for row in decision.open],
        "unknown": [_plain(row.cell) for row in decision.unknown],
    }
    return {key: _finite(value) for key, value in content.items()}


def decision_metrics(decision: Decision) -> Metrics:
    """What `dvc metrics diff` should show of a decision."""
    told, test = _flat(decision.recommended) if decision.recommended else {}, decision.test
    return {
        **{f"recommended_{n}": None if value == "" else value for n, value in told.items()},
        "settled": decision.settled,
        "none_beats_base": decision.none_beats_base,
        "open": len(decision.open),
        "difference": test.difference.value if test else None,
        "difference_low": test.difference.low if test else None,
        "difference_high": test.difference.high if test else None,
    }


def _flat(cell: CellKey) -> dict[str, DialValue | None]:
    """A configuration by the names of table columns."""
    if cell.base:
        return {"quant": cell.quant, "base": True}
    named = {"quant": cell.quant, "method": cell.method, "targets": cell.targets}
    form = {} if cell.serve == APART else {"serve": cell.serve}
    return {**named, **dict(cell.dials), "variant": cell.variant, **form}


def _plain(value: Any) -> Any:
    if isinstance(value, CellKey):
        return _flat(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


def _finite(value: Any) -> Any:
    """The same without numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
