"""What `dvc metrics` and `dvc plots` read: a small summary, and the training losses."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence

from lorascope.comparing.cells import variants
from lorascope.comparing.ruling import Decision
from lorascope.records import MergeRecord, Study
from lorascope.reporting.tables.accuracy import (
    AccuracyRow,
    accuracy_rows,
    by_validation_score,
    modes,
)
from lorascope.reporting.tables.decision import decision_metrics
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
        summary["merge"] = _merge(study.merge)
    known = {
        name: {key: _finite(value) for key, value in metrics.items() if _finite(value) is not None}
        for name, metrics in summary.items()
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
        "scored_trials": sum(1 for row in rows if row.scored and not row.cell.base),
        "unscored_trials": sum(1 for row in rows if not row.scored and not row.cell.base),
    }


def _merge(merge: MergeRecord) -> Metrics:
    return {
        "trial": merge.trial,
        "passed": merge.passed,
        "prediction_agreement": merge.prediction_agreement,
        "largest_logit_difference": merge.largest_logit_difference,
        "adapter_loss_nats": merge.adapter_loss_nats,
        "merged_loss_nats": merge.merged_loss_nats,
    }


def _finite(value: float | int | str | bool | None) -> float | int | str | bool | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
