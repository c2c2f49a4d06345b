"""Publishing: records that the store lacks are added, and the rest stays as it is. Each run is
written whole, closed on every way out, and written once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lorascope.files.layout import Layout
from lorascope.records import EvaluationRecord, TrialRecord
from lorascope.tracking.connection import (
    TrackingError,
    artifact_root,
    check_database,
    configure_environment,
    failures_as_tracking_errors,
    locked,
    make_database,
    presentable,
    project_database,
    store_uri,
)
from lorascope.tracking.content import (
    EVALUATION_TAG,
    EXPERIMENT_TAGS,
    experiment_name,
    milliseconds,
    sweep_identity,
    sweep_run,
    trial_run,
)
from lorascope.tracking.points import evaluation_points
from lorascope.tracking.runs import ensure_run, find_run, log_points

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Publication:
    """Result of one publishing."""

    where: str
    """The store's address, without credentials, relative to the project."""
    sweeps_added: int
    trials_added: int
    trials_present: int
    """Trials that the store had already."""
    evaluations_added: int
    evaluations_present: int
    evaluations_without_trial: int
    """Scores of a bare base, or of a trial that the store does not have: they have no run."""
    runs: dict[str, str]
    """Trial identity -> id of its run."""


@dataclass(frozen=True)
class Attempt:
    """Outcome of an attempt to publish."""

    state: str
    """'published', or in one line why not."""
    runs: dict[str, str]
    """Trial identity -> id of its run; empty where nothing was published."""


def publish(
    trials: Sequence[TrialRecord], evaluations: Sequence[EvaluationRecord], layout: Layout
) -> Publication:
    """Add what the store lacks: a parent run per sweep, a child run per trial, scores.

    Runs that are there already stay as they are; a trial that was run again gets another run.
    Scores are compared: those missing are added, and those that a newer evaluation changed get a
    newer point.

    Raises:
        TrackingError: the store cannot be reached or written.
    """
    configure_environment()
    from mlflow import MlflowClient

    uri = store_uri(layout)
    with failures_as_tracking_errors(layout), locked(layout):
        make_database(layout)
        check_database(uri)
        client = MlflowClient(tracking_uri=uri)
        writer = _Writer(
            client, artifact_root(layout, uri), is_local=uri == project_database(layout)
        )
        added = [writer.add_trial(trial) for trial in trials]
        newest = sorted(evaluations, key=lambda e: e.provenance.created_utc)
        by_trial = {(e.trial_identity, e.form): e for e in newest if e.trial_identity and e.key}
        scored = [writer.add_scores(evaluation) for evaluation in by_trial.values()]
    return Publication(
        where=presentable(uri, layout),
        sweeps_added=writer.sweeps_added,
        trials_added=added.count(True),
        trials_present=added.count(False),
        evaluations_added=scored.count(True),
        evaluations_present=scored.count(False),
        evaluations_without_trial=scored.count(None) + sum(not e.trial_identity for e in newest),
        runs=writer.runs,
    )


def try_publish(
    trials: Sequence[TrialRecord], evaluations: Sequence[EvaluationRecord], layout: Layout
) -> Attempt:
    """Publish; a store that cannot be reached is printed as a warning: the run goes on.

    A store that could not be reached is not tried again by this process: each try can take 20 s.
    """
    uri = store_uri(layout)
    if uri in _unreachable:
        return Attempt(_unreachable[uri], {})
    try:
        done = publish(trials, evaluations, layout)
    except TrackingError as error:
        _unreachable[uri] = reason = presentable(str(error), layout)
        print(
            f"warning: not published to MLflow: {reason}. The records are kept; "
            "`lorascope publish` fills it in later.",
            file=sys.stderr,
        )
        return Attempt(reason, {})
    return Attempt("published", done.runs)


_unreachable: dict[str, str] = {}
"""Tracking stores that failed in this process, and why."""


@dataclass
class _Writer:
    """A writer to the store, which keeps the ids that this publishing needs."""

    client: MlflowClient
    artifacts: str | None
    is_local: bool
    experiments: dict[str, str] = field(default_factory=dict)
    sweeps: dict[str, str] = field(default_factory=dict)
    sweeps_added: int = 0
    runs: dict[str, str] = field(default_factory=dict)

    def add_trial(self, trial: TrialRecord) -> bool:
        """Add the trial's run where it is missing, and return whether it was."""
        experiment = self.experiment(experiment_name(trial.key))
        sweep = sweep_identity(trial)
        if sweep not in self.sweeps:
            self.sweeps[sweep], added = ensure_run(self.client, experiment, sweep_run(trial))
            self.sweeps_added += added
        run = trial_run(trial, parent=self.sweeps[sweep])
        self.runs[trial.identity], is_new = ensure_run(self.client, experiment, run)
        return is_new

    def add_scores(self, evaluation: EvaluationRecord) -> bool | None:
        """Add new scores to the trial's run. Returns whether there were any; None without a run."""
        if evaluation.key is None or evaluation.trial_identity is None:
            return None
        experiment = self.experiment(experiment_name(evaluation.key))
        run = find_run(self.client, experiment, evaluation.trial_identity)
        if run is None:
            return None
        have = run.data.metrics
        new = [p for p in evaluation_points(evaluation) if have.get(p.name) != p.value]
        if new:
            replaced = [p.name for p in new if p.name in have]
            created = milliseconds(evaluation.provenance.created_utc)
            # MLflow shows the latest point: one made after the clock was set back must not hide.
            created = max(created, 1 + self._latest_ms(run.info.run_id, replaced))
            log_points(self.client, run.info.run_id, new, created)
            tag = (
                EVALUATION_TAG
                if evaluation.served is None
                else f"{EVALUATION_TAG}.{evaluation.form}"
            )
            self.client.set_tag(run.info.run_id, tag, evaluation.identity)
        return bool(new)

    def _latest_ms(self, run_id: str, names: list[str]) -> int:
        histories = (self.client.get_metric_history(run_id, name) for name in names)
        return max((point.timestamp for history in histories for point in history), default=-1)

    def experiment(self, name: str) -> str:
        """The experiment's id; it is made, or brought back from the bin, where needed."""
        if name not in self.experiments:
            found = self._find(name)
            self.experiments[name] = found or self.client.create_experiment(
                name, artifact_location=self.artifacts, tags=EXPERIMENT_TAGS
            )
        return self.experiments[name]

    def _find(self, name: str) -> str | None:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return None
        if self.is_local and found.artifact_location != self.artifacts:
            raise TrackingError(
                f"mlflow.db keeps its artifacts in {found.artifact_location}: it was made before "
                "the project was moved or copied. Delete mlflow.db and mlartifacts/, then run "
                "lorascope publish."
            )
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        for tag, value in EXPERIMENT_TAGS.items():
            # Somebody may have chosen another view.
            if tag not in found.tags:
                self.client.set_experiment_tag(found.experiment_id, tag, value)
        return str(found.experiment_id)
