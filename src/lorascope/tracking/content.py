"""The content of a record's run in MLflow, as plain values: nothing here imports mlflow.

Parameters are write-once text of at most 6,000 characters. Tags say what a run was made from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic_core import to_json

from lorascope.files.confidential import without_secrets
from lorascope.files.revisions import SHORT_HASH_LENGTH, canonical_sha256
from lorascope.records import (
    Provenance,
    Status,
    TrialKey,
    TrialRecord,
)
from lorascope.tracking.datasets import DatasetUse
from lorascope.tracking.points import Point, metric_name, trial_points

IDENTITY_TAG = "lorascope.identity"
SWEEP_TAG = "lorascope.sweep"
ATTEMPT_TAG = "lorascope.attempt"
"""Tag with the time and result of an attempt: a trial may have been run again since."""
SUPERSEDED_TAG = "lorascope.superseded_by"
"""Tag on runs of earlier attempts: the id of the latest one's run."""
COMPLETE_TAG = "lorascope.complete"
"""Tag that is set last: a run without it was interrupted while it was written, and is written
again."""
TRIAL_TAG = "lorascope.trial"
NAME_TAG = "mlflow.runName"
EVALUATION_TAG = "lorascope.evaluation"
PARENT_TAG = "mlflow.parentRunId"
"""Tag that makes a run a child, across processes too."""

LIVE_TAG = "lorascope.live"
"""Tag on a run whose trial is being trained: who writes it, until the trial's record does; on a
sweep's, who sends the load of the machine."""

SINCE_TAG = "lorascope.live_since"
"""Tag on such a run: when the training began that writes it now, in milliseconds. An earlier one
may have begun the run."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without a kind MLflow's pages open an experiment as one of prompts and traces, which is empty."""
SOURCE_TAGS = {"mlflow.source.name": "lorascope", "mlflow.source.type": "LOCAL"}

MAX_TEXT = 6000


class ModelAndData(Protocol):
    """What has a model and a dataset."""

    @property
    def model(self) -> str: ...

    @property
    def data(self) -> str: ...


class Declared(Protocol):
    """What is known of a trial before it ends, as its record has it."""

    @property
    def trial(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def key(self) -> TrialKey: ...

    @property
    def settings(self) -> dict[str, object]: ...

    @property
    def provenance(self) -> Provenance: ...


@dataclass(frozen=True)
class StartedTrial:
    """A trial that is being trained."""

    trial: str
    identity: str
    key: TrialKey
    settings: dict[str, object]
    provenance: Provenance


@dataclass(frozen=True)
class RunContent:
    """All content of one run."""

    identity: str
    attempt: str
    name: str
    status: str
    start_ms: int
    end_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    data: tuple[str, str]
    """Name and digest of the dataset."""
    read: tuple[DatasetUse, ...] = ()
    """What was read of it, where its files are there."""
    points: list[Point] = field(default_factory=list)
    former: str | None = None
    """The identity that the trial was published under before."""
    record: str | None = None
    """The record itself, as JSON."""


def experiment_name(of: ModelAndData) -> str:
    """One experiment per model and dataset: its runs are comparable with each other."""
    return f"{of.model}/{of.data}"


def sweep_settings(trial: Declared) -> dict[str, object]:
    """A trial's settings without those that vary inside a sweep: the seed, and the adapter's dials
    that are numbers."""
    settings = {name: value for name, value in trial.settings.items() if name != "seed"}
    adapter = settings.get(trial.key.method)
    if isinstance(adapter, dict):
        swept = {name for name, v in trial.key.dials.items() if not isinstance(v, bool)}
        settings[trial.key.method] = {k: v for k, v in adapter.items() if k not in swept}
    return settings


def sweep_identity(trial: Declared) -> str:
    """Digest of the settings that all trials of one sweep share."""
    shared = [trial.key.model, trial.key.data, trial.key.quant, sweep_settings(trial)]
    return canonical_sha256(shared)


def sweep_run(trial: Declared) -> RunContent:
    """The parent run of the sweep that `trial` belongs to: its parameters are what trials share."""
    start, end = _span(trial)
    key, identity = trial.key, sweep_identity(trial)
    named = {"model": key.model, "data": key.data, "quant": key.quant, "targets": key.targets}
    return RunContent(
        identity=identity,
        attempt=identity,
        name=f"{key.quant}-{key.targets}-{identity[:SHORT_HASH_LENGTH]}",
        status="FINISHED",
        start_ms=start,
        end_ms=end,
        tags={**dict.fromkeys((IDENTITY_TAG, ATTEMPT_TAG, SWEEP_TAG), identity), **SOURCE_TAGS},
        params=_texts({**named, **_flat("settings", sweep_settings(trial))}),
        data=_data(trial),
    )


def trial_run(trial: TrialRecord, parent: str) -> RunContent:
    """The run of one trial under the run `parent` of its sweep."""
    start, end = _span(trial)
    return RunContent(
        identity=trial.identity,
        attempt=_attempt(trial),
        name=trial.trial,
        status="FINISHED" if trial.status is Status.completed else "FAILED",
        start_ms=start,
        end_ms=end,
        tags={**_trial_tags(trial), PARENT_TAG: parent},
        params=_trial_params(trial),
        data=_data(trial),
        points=[point for point in trial_points(trial) if point.is_finite],
        former=trial.taken_over.identity if trial.taken_over else None,
        record=without_secrets(to_json(trial, indent=2, inf_nan_mode="strings").decode()) + "\n",
    )


def live_run(trial: StartedTrial, parent: str) -> RunContent:
    """The run of a trial that is being trained: what its end decides is missing."""
    start, _ = _span(trial)
    tags = {
        IDENTITY_TAG: trial.identity,
        SWEEP_TAG: sweep_identity(trial),
        TRIAL_TAG: trial.trial,
        PARENT_TAG: parent,
        SINCE_TAG: str(start),
        "status": "running",
        **SOURCE_TAGS,
        **provenance_tags(trial.provenance),
    }
    del tags["lorascope.device"]
    return RunContent(
        identity=trial.identity,
        attempt="",
        name=trial.trial,
        status="RUNNING",
        start_ms=start,
        end_ms=start,
        tags=tags,
        params=_texts({**_named(trial), **_flat("settings", trial.settings)}),
        data=_data(trial),
    )


def milliseconds(created_utc: str) -> int:
    return int(datetime.fromisoformat(created_utc).timestamp() * 1000)


def _span(trial: Declared) -> tuple[int, int]:
    """Times at which the trial began and its measured phases were over, in milliseconds.

    The stage captures provenance before it starts a trial.
    """
    start = milliseconds(trial.provenance.created_utc)
    result = trial.result if isinstance(trial, TrialRecord) else None
    phases = (result.load_seconds, result.train_seconds, result.evaluate_seconds) if result else ()
    return start, start + int(sum(phases) * 1000)


def _attempt(trial: TrialRecord) -> str:
    """Name of one attempt at a trial: a trial that was killed may run again, and complete."""
    outcome = trial.status.value if trial.result is None else trial.result.adapter_sha256
    return f"{trial.provenance.created_utc} {outcome}"


def _data(trial: Declared) -> tuple[str, str]:
    return trial.key.data, str(trial.settings.get("data", "unknown"))


def _named(trial: Declared) -> dict[str, object]:
    named: dict[str, object] = {**vars(trial.key), **trial.key.dials}
    del named["dials"]
    return named


def _trial_params(trial: TrialRecord) -> dict[str, str]:
    named = _named(trial)
    named["device"] = trial.provenance.device
    named["threads"] = trial.provenance.threads
    if trial.provenance.shards > 1:
        named["shards"] = trial.provenance.shards
    if trial.provenance.placed > 1:
        named["placed"] = trial.provenance.placed
    if trial.result is not None:
        named["compute_dtype"] = trial.result.compute_dtype
        named["attention"] = trial.result.attention
    return _texts({**named, **_flat("settings", trial.settings)})


def _trial_tags(trial: TrialRecord) -> dict[str, str]:
    """Tags of a trial's run. A trial that did not complete says why in the run's description."""
    tags = {
        IDENTITY_TAG: trial.identity,
        ATTEMPT_TAG: _attempt(trial),
        SWEEP_TAG: sweep_identity(trial),
        TRIAL_TAG: trial.trial,
        "status": trial.status.value,
        **SOURCE_TAGS,
        **provenance_tags(trial.provenance),
    }
    if trial.result is not None:
        tags["lorascope.adapter_sha256"] = trial.result.adapter_sha256
    if trial.status is not Status.completed:
        last = "\n".join(["```", *trial.last_lines, "```"]) if trial.last_lines else ""
        note = without_secrets(f"{trial.status.value}: {trial.reason}\n\n{last}")
        tags["mlflow.note.content"] = note[:MAX_TEXT]
    left_out = [f"{p.name}@{p.step}={p.value}" for p in trial_points(trial) if not p.is_finite]
    if left_out:
        tags["lorascope.not_finite"] = ", ".join(left_out)[:MAX_TEXT]
    return tags


def provenance_tags(provenance: Provenance) -> dict[str, str]:
    """Tags for all of the provenance but its threads, which are a parameter."""
    facts = {f"lorascope.{name}": value for name, value in vars(provenance).items()}
    del facts["lorascope.versions"], facts["lorascope.threads"]
    facts["mlflow.source.git.commit"] = provenance.git_commit
    versions = {f"version.{name}": value for name, value in provenance.versions.items()}
    return _texts({**{k: v for k, v in facts.items() if v is not None}, **versions})


def _flat(prefix: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: leaf for key in value for name, leaf in _flat(f"{prefix}.{key}", value[key]).items()
    }


def _texts(values: dict[str, object]) -> dict[str, str]:
    """Strings as they are, everything else as JSON, cut to what MLflow keeps."""
    return {
        metric_name(name): (
            value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        )[:MAX_TEXT]
        for name, value in values.items()
    }
