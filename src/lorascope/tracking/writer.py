"""Adds to the store what it lacks of each record, and remembers the ids that this needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lorascope.files.layout import Layout
from lorascope.records import EvaluationRecord, MergeRecord, TrialRecord
from lorascope.tracking.connection import (
    TrackingError,
    artifact_root,
    check_database,
    make_database,
    project_database,
    store_uri,
)
from lorascope.tracking.content import (
    EVALUATION_TAG,
    EXPERIMENT_TAGS,
    LIVE_TAG,
    NAME_TAG,
    PARENT_TAG,
    RunContent,
    StartedTrial,
    experiment_name,
    live_run,
    milliseconds,
    sweep_identity,
    sweep_run,
    trial_run,
)
from lorascope.tracking.datasets import CONTEXTS, splits_read
from lorascope.tracking.liveness import close_dead, local_tokens
from lorascope.tracking.models import MODEL_TAG, log_adapter, register
from lorascope.tracking.points import Point, evaluation_points, is_score_name, score_form
from lorascope.tracking.runs import ensure_run, find_run, open_run, set_tags, update_points
from lorascope.tracking.study_content import (
    FILES_TAG,
    BareBase,
    StudyContent,
    base_run,
    changing_tags,
    study_run,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass
class Writer:
    """A writer to the store, which keeps the ids that this publishing needs."""

    client: MlflowClient
    layout: Layout
    artifacts: str | None
    is_local: bool
    local_tokens: frozenset[str] = frozenset()
    """Of writers whose runs a record may take over."""
    experiments: dict[str, str] = field(default_factory=dict)
    sweeps: dict[str, str] = field(default_factory=dict)
    sweeps_added: int = 0
    runs: dict[str, str] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)

    def add_trial(self, trial: TrialRecord) -> bool:
        """Add the trial's run where it is missing, and return whether it was."""
        experiment = self.experiment(experiment_name(trial.key))
        sweep = sweep_identity(trial)
        if sweep not in self.sweeps:
            shared = self._with_data(sweep_run(trial), trial.key.model)
            self.sweeps[sweep], added = ensure_run(self.client, experiment, shared)
            self.sweeps_added += added
        run = self._with_data(trial_run(trial, parent=self.sweeps[sweep]), trial.key.model)
        self.runs[trial.identity], is_new = ensure_run(
            self.client, experiment, run, self.local_tokens
        )
        if is_new:
            self._log_adapter(trial, self.runs[trial.identity])
        return is_new

    def _with_data(
        self, run: RunContent, model: str, splits: Sequence[str] = tuple(CONTEXTS)
    ) -> RunContent:
        """The same with the splits that it read."""
        name, sha256 = run.data
        read = splits_read(self.layout, model, name, sha256, splits, self.is_local)
        return replace(run, read=tuple(read))

    def open_trial(self, trial: StartedTrial, token: str) -> tuple[Run, Run | None]:
        """Open the run of a trial that is being trained, under its sweep's. It, tagged with the
        writer's `token`, and the sweep's, which is tagged too: None where another writer's is."""
        client, experiment = self.client, self.experiment(experiment_name(trial.key))
        sweep = sweep_identity(trial)
        if sweep not in self.sweeps:
            self.sweeps[sweep], _ = ensure_run(
                client, experiment, self._with_data(sweep_run(trial), trial.key.model)
            )
        parent = client.get_run(self.sweeps[sweep])
        run = open_run(client, experiment, live_run(trial, parent.info.run_id), token)
        if parent.data.tags.get(LIVE_TAG, token) != token:
            return run, None
        set_tags(client, parent, {LIVE_TAG: token})
        return run, parent

    def add_scores(self, evaluation: EvaluationRecord) -> bool | None:
        """Add new scores to the trial's run. Returns whether there were any; None without a run."""
        if evaluation.key is None or evaluation.trial_identity is None:
            return None
        name = experiment_name(evaluation.key)
        return self._add_scores(name, evaluation.trial_identity, evaluation)

    def add_base(self, base: BareBase) -> bool:
        """Add the run of a bare base, and its scores, where they are missing; whether they were."""
        run = self._with_data(base_run(base), base.model, ("validation", "test"))
        experiment = self.experiment(base.experiment)
        self.bases[run.identity], is_new = ensure_run(self.client, experiment, run)
        return bool(self._add_scores(base.experiment, run.identity, base.scores)) or is_new

    def add_study(self, study: StudyContent, trials: Sequence[TrialRecord]) -> bool:
        """Bring the study's run up to date, with the sweeps of its `trials` and its bases below it.
        Returns whether anything had changed."""
        client, experiment = self.client, self.experiment(study.experiment)
        run_id, changed = ensure_run(
            client, experiment, self._with_data(study_run(study), study.model)
        )
        run, tags = client.get_run(run_id), changing_tags(study)
        points = [Point(name, value, 0) for name, value in study.metrics.items()]
        changed |= update_points(client, run, points, milliseconds(study.created_utc))
        if run.data.tags.get(FILES_TAG) != study.files_sha256:
            for path, text in study.files.items():
                client.log_text(run_id, text, path)
            tags[FILES_TAG], changed = study.files_sha256, True
        changed |= set_tags(client, run, {**tags, NAME_TAG: study.name})
        below = {self.sweeps[sweep_identity(t)] for t in trials if t.identity in study.trials}
        below |= {self.bases[base_run(base).identity] for base in study.bases}
        for child in below:
            changed |= set_tags(client, client.get_run(child), {PARENT_TAG: run_id})
        for run in client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{run_id}'"):
            # Of another grid, which was declared before.
            if run.info.run_id not in below:
                client.delete_tag(run.info.run_id, PARENT_TAG)
                changed = True
        return changed

    def register(self, name: str, merge: MergeRecord, trials: Sequence[TrialRecord]) -> str:
        """Make the shipped trial's adapter a version of the registered model `name`."""
        trial = next((trial for trial in trials if trial.trial == merge.trial), None)
        model = self._model_of(trial) if trial else None
        if model is None:
            raise TrackingError(
                f"{merge.trial}, which is shipped, is not registered as {name}: its adapter is not "
                "in experiments/train. Run `lorascope train-lora` with its settings."
            )
        return register(self.client, name, model, merge)

    def _model_of(self, trial: TrialRecord) -> str | None:
        """The logged model of a trial that has a run, which is logged where it is not."""
        run_id = self.runs[trial.identity]
        tags = self.client.get_run(run_id).data.tags
        return tags.get(MODEL_TAG) or self._log_adapter(trial, run_id)

    def _log_adapter(self, trial: TrialRecord, run_id: str) -> str | None:
        experiment = self.experiment(experiment_name(trial.key))
        adapter = self.layout.trials(trial.key.quant) / trial.trial / "adapter"
        return log_adapter(self.client, experiment, run_id, trial, adapter)

    def _add_scores(
        self, experiment: str, identity: str, evaluation: EvaluationRecord
    ) -> bool | None:
        run = find_run(self.client, self.experiment(experiment), identity)
        if run is None:
            return None
        form = score_form(evaluation)
        changed = update_points(
            self.client, run, evaluation_points(evaluation),
            milliseconds(evaluation.provenance.created_utc), lambda name: is_score_name(name, form),
        )  # fmt: skip
        if changed:
            tag = f"{EVALUATION_TAG}.{form}" if form else EVALUATION_TAG
            self.client.set_tag(run.info.run_id, tag, evaluation.identity)
        return changed

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


def connected(layout: Layout) -> Writer:
    """A writer to the store, in which the runs of dead writers are closed. Call it while holding
    `locked`."""
    from mlflow import MlflowClient

    uri = store_uri(layout)
    make_database(layout)
    check_database(uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    close_dead(client, layout)
    is_local = uri == project_database(layout)
    return Writer(client, layout, artifact_root(layout, uri), is_local, local_tokens(layout))
