"""Publishing: records that the store lacks are added, and the rest stays as it is. Each run is
written whole, closed on every way out, and written once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lorascope.files.layout import RECORD, Layout
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
    ATTEMPT_TAG,
    COMPLETE_TAG,
    EVALUATION_TAG,
    IDENTITY_TAG,
    NAME_TAG,
    PARENT_TAG,
    SUPERSEDED_TAG,
    SWEEP_TAG,
    TRIAL_TAG,
    Point,
    RunContent,
    evaluation_points,
    experiment_name,
    milliseconds,
    sweep_identity,
    sweep_run,
    trial_run,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


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
            self.experiments[name] = self._find(name) or self.client.create_experiment(
                name, artifact_location=self.artifacts
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
        return str(found.experiment_id)


MAX_POINTS = 1000
"""MLflow's limit of metrics for one log_batch."""
MAX_PARAMS = 100
"""MLflow's limit of parameters for one log_batch."""
MAX_DIGEST = 36
"""MLflow's limit for a dataset's digest; the whole one is a parameter."""


def ensure_run(client: MlflowClient, experiment: str, content: RunContent) -> tuple[str, bool]:
    """The run's id, and whether it had to be written: a run left half-written is completed, and
    those whose parent somebody deleted get the present one."""
    if content.former is not None:
        _rename(client, _find_runs(client, experiment, content.former), content)
    attempts = _find_runs(client, experiment, content.identity)
    _give_parent(client, attempts, content.tags.get(PARENT_TAG))
    same = [run for run in attempts if run.data.tags.get(ATTEMPT_TAG) == content.attempt]
    if same and COMPLETE_TAG in same[0].data.tags:
        return same[0].info.run_id, False
    run = same[0] if same else client.create_run(
        experiment, start_time=content.start_ms, tags=content.tags, run_name=content.name
    )  # fmt: skip
    run_id = str(run.info.run_id)
    status = "FAILED"
    try:
        _log_content(client, run_id, content)
        status = content.status
    finally:
        client.set_terminated(run_id, status, content.end_ms)
    for other in attempts:
        if other.info.run_id != run_id:
            client.set_tag(other.info.run_id, SUPERSEDED_TAG, run_id)
    client.set_tag(run_id, COMPLETE_TAG, "true")
    return run_id, True


def _rename(client: MlflowClient, runs: list[Run], content: RunContent) -> None:
    renamed = {tag: content.tags[tag] for tag in (TRIAL_TAG, SWEEP_TAG, IDENTITY_TAG)}
    for run in runs:
        for tag, value in {NAME_TAG: content.name, **renamed}.items():
            client.set_tag(run.info.run_id, tag, value)


def _give_parent(client: MlflowClient, runs: list[Run], parent: str | None) -> None:
    """Give runs the present parent: the sweep's page would show no child of a deleted run."""
    for run in runs:
        if parent is not None and run.data.tags.get(PARENT_TAG) != parent:
            client.set_tag(run.info.run_id, PARENT_TAG, parent)


def find_run(client: MlflowClient, experiment: str, identity: str) -> Run | None:
    """The run of the latest attempt at a trial, unless somebody deleted it."""
    runs = _find_runs(client, experiment, identity)
    latest = [run for run in runs if SUPERSEDED_TAG not in run.data.tags]
    return latest[0] if latest else None


def _find_runs(client: MlflowClient, experiment: str, identity: str) -> list[Run]:
    wanted = f"tags.`{IDENTITY_TAG}` = '{identity}'"
    return list(client.search_runs([experiment], filter_string=wanted))


def log_points(client: MlflowClient, run_id: str, points: list[Point], time_ms: int) -> None:
    """Log points in few calls. The time is the record's: a point written twice is one row."""
    from mlflow.entities import Metric

    metrics = [Metric(point.name, point.value, time_ms, point.step) for point in points]
    for start in range(0, len(metrics), MAX_POINTS):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_POINTS])


def _log_content(client: MlflowClient, run_id: str, content: RunContent) -> None:
    from mlflow.entities import Dataset, DatasetInput, Param

    params = [Param(name, value) for name, value in content.params.items()]
    for start in range(0, len(params), MAX_PARAMS):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS])
    log_points(client, run_id, content.points, content.end_ms)
    name, digest = content.data
    data = Dataset(name, digest[:MAX_DIGEST], source_type="local", source="{}")
    client.log_inputs(run_id, datasets=[DatasetInput(data)])
    if content.record is not None:
        client.log_text(run_id, content.record, RECORD)
