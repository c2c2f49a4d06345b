"""What other trackers are given of each run, made from the records as MLflow's runs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.records import EvaluationRecord, TrialRecord
from lorascope.tracking.content import RunContent, experiment_name, trial_run
from lorascope.tracking.points import Point, evaluation_points
from lorascope.tracking.study_content import BareBase, base_run


@dataclass(frozen=True)
class ExportedRun:
    """One trial or bare base."""

    experiment: str
    """Model and dataset: tiny/biographies."""
    name: str
    params: dict[str, str]
    points: list[Point]
    end_seconds: float
    """When it ended, since 1970."""

    @property
    def curves(self) -> dict[str, list[Point]]:
        """Name -> its points in the order of steps."""
        found: dict[str, list[Point]] = {}
        for point in sorted(self.points, key=lambda point: point.step):
            found.setdefault(point.name, []).append(point)
        return found

    @property
    def results(self) -> dict[str, float]:
        """Name -> last value."""
        return {name: curve[-1].value for name, curve in self.curves.items()}


def exported_runs(
    trials: Sequence[TrialRecord],
    evaluations: Sequence[EvaluationRecord],
    bases: Sequence[BareBase] = (),
) -> list[ExportedRun]:
    """Every trial with its scores, then every bare base."""
    newest = sorted(evaluations, key=lambda e: e.provenance.created_utc)
    scores = {(e.trial_identity, e.form): evaluation_points(e) for e in newest}
    runs = []
    for trial in trials:
        own = [p for (of, _), points in scores.items() if of == trial.identity for p in points]
        runs.append(_run(experiment_name(trial.key), trial_run(trial, ""), own))
    return [*runs, *(_run(b.experiment, base_run(b), evaluation_points(b.scores)) for b in bases)]


def _run(experiment: str, content: RunContent, scores: list[Point]) -> ExportedRun:
    points = [*content.points, *scores]
    return ExportedRun(experiment, content.name, content.params, points, content.end_ms / 1000)
