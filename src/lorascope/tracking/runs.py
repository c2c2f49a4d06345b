"""Runs in the store: each is written whole, closed on every way out, and written once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING

from lorascope.files.layout import RECORD
from lorascope.tracking.content import (
    ATTEMPT_TAG,
    COMPLETE_TAG,
    IDENTITY_TAG,
    LIVE_TAG,
    NAME_TAG,
    PARENT_TAG,
    SINCE_TAG,
    SUPERSEDED_TAG,
    SWEEP_TAG,
    TRIAL_TAG,
    RunContent,
)
from lorascope.tracking.datasets import log_datasets
from lorascope.tracking.models import MODEL_TAG
from lorascope.tracking.points import Point

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MAX_POINTS = 1000
"""MLflow's limit of metrics for one log_batch."""
MAX_PARAMS = 100
"""MLflow's limit of parameters for one log_batch."""


def ensure_run(
    client: MlflowClient,
    experiment: str,
    content: RunContent,
    local: Set[str] = frozenset(),
) -> tuple[str, bool]:
    """The run's id, and whether it had to be written: a run left half-written is completed, that of
    the training is taken over where its writer's token is one of `local`, and those whose parent
    somebody deleted get the present one."""
    if content.former is not None:
        _rename(client, _find_runs(client, experiment, content.former), content)
    attempts = _find_runs(client, experiment, content.identity)
    _give_parent(client, attempts, content.tags.get(PARENT_TAG))
    same = [run for run in attempts if run.data.tags.get(ATTEMPT_TAG) == content.attempt]
    if same and COMPLETE_TAG in same[0].data.tags:
        return same[0].info.run_id, False
    begun = same[0] if same else _live_run(client, attempts, content, local)
    run = begun or client.create_run(
        experiment, start_time=content.start_ms, tags=content.tags, run_name=content.name
    )
    run_id = str(run.info.run_id)
    _write(client, run, content, is_begun=begun is not None)
    # One that said otherwise is gone by now; one that is being trained will have the last word.
    for other in _find_runs(client, experiment, content.identity):
        if other.info.run_id != run_id and not _is_unfinished(other):
            client.set_tag(other.info.run_id, SUPERSEDED_TAG, run_id)
    client.set_tag(run_id, COMPLETE_TAG, "true")
    return run_id, True


def _write(client: MlflowClient, run: Run, content: RunContent, is_begun: bool) -> None:
    """Have the run say what `content` does, and close it on every way out."""
    status = "FAILED"
    try:
        points = content.points
        if is_begun:
            # What is there already, a second time under another hour, would be two points.
            have = set(_rows(client, run))
            points = [point for point in points if point not in have]
            _take_over(client, run, content)
        _log_content(client, run, content, points)
        status = content.status
    finally:
        client.set_terminated(run.info.run_id, status, content.end_ms)


def open_run(client: MlflowClient, experiment: str, content: RunContent, token: str) -> Run:
    """The run of a trial that is being trained: one that was left unfinished goes on, unless others
    are writing it."""
    for run in _find_runs(client, experiment, content.identity):
        if _is_unfinished(run) and _is_free(run, {token}):
            # Whoever closes what is left of a dead writer finds it by its token.
            since = content.tags[SINCE_TAG]
            set_tags(client, run, {LIVE_TAG: token, SINCE_TAG: since, "status": "running"})
            client.update_run(run.info.run_id, status="RUNNING")
            return run
    run = client.create_run(
        experiment, start_time=content.start_ms, tags={**content.tags, LIVE_TAG: token},
        run_name=content.name,
    )  # fmt: skip
    log_params(client, run.info.run_id, content.params)
    return run


def _is_unfinished(run: Run) -> bool:
    """Whether no record has written the run yet."""
    return COMPLETE_TAG not in run.data.tags and ATTEMPT_TAG not in run.data.tags


def _is_free(run: Run, tokens: Set[str]) -> bool:
    """Whether nobody writes the run but the writers of `tokens`."""
    return run.info.status != "RUNNING" or run.data.tags.get(LIVE_TAG) in tokens


def _live_run(
    client: MlflowClient, attempts: list[Run], content: RunContent, local: Set[str]
) -> Run | None:
    """The run that was written while the trial was trained; None, and it is gone, where it says
    otherwise than the record, as it may where the trial was begun anew."""
    for run in attempts:
        since = int(run.data.tags.get(SINCE_TAG, run.info.start_time))
        is_later = since > content.end_ms
        if is_later or not _is_unfinished(run) or not _is_free(run, local):
            continue
        rows = _rows(client, run) if content.points else []
        if len(set(rows)) == len(rows) and set(rows) <= set(content.points):
            return run
        client.delete_run(run.info.run_id)
    return None


def _rows(client: MlflowClient, run: Run) -> list[Point]:
    """All that was logged to a run, whenever that was."""
    histories = ((n, client.get_metric_history(run.info.run_id, n)) for n in run.data.metrics)
    return [Point(name, p.value, p.step) for name, history in histories for p in history]


def _take_over(client: MlflowClient, run: Run, content: RunContent) -> None:
    """Have an unfinished run say of itself what the record does."""
    from mlflow.entities import RunTag

    tags = [RunTag(tag, value) for tag, value in content.tags.items()]
    client.log_batch(run.info.run_id, tags=tags)
    for tag in {LIVE_TAG, SINCE_TAG} & run.data.tags.keys():
        client.delete_tag(run.info.run_id, tag)


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
    """The run of the latest record of a trial, unless somebody deleted it."""
    runs = _find_runs(client, experiment, identity)
    written = [run for run in runs if COMPLETE_TAG in run.data.tags]
    latest = [run for run in written if SUPERSEDED_TAG not in run.data.tags]
    return latest[0] if latest else None


def _find_runs(client: MlflowClient, experiment: str, identity: str) -> list[Run]:
    wanted = f"tags.`{IDENTITY_TAG}` = '{identity}'"
    return list(client.search_runs([experiment], filter_string=wanted))


def log_points(
    client: MlflowClient, run_id: str, points: list[Point], time_ms: int, model: str | None = None
) -> None:
    """Log points in few calls, as those of the logged `model` too where there is one. Written twice
    under one time, a point is one row."""
    from mlflow.entities import Metric

    metrics = [
        Metric(point.name, point.value, time_ms, point.step, model_id=model, run_id=run_id)
        for point in points
    ]
    for start in range(0, len(metrics), MAX_POINTS):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_POINTS])


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Log parameters in few calls; what is there already must be the same."""
    from mlflow.entities import Param

    values = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(values), MAX_PARAMS):
        client.log_batch(run_id, params=values[start : start + MAX_PARAMS])


def update_points(
    client: MlflowClient,
    run: Run,
    points: list[Point],
    time_ms: int,
    is_ours: Callable[[str], bool] = lambda name: True,
) -> bool:
    """Give a run the `points` that it lacks or has with other values; whether there were any. What
    it has beside them of `is_ours` becomes NaN: MLflow forgets no metric, and shows the latest."""
    have, names = run.data.metrics, {point.name for point in points}
    new = [point for point in points if have.get(point.name) != point.value]
    new += [
        Point(name, math.nan, 0)
        for name, value in have.items()
        if name not in names and is_ours(name) and not math.isnan(value)
    ]
    if new:
        replaced = [point.name for point in new if point.name in have]
        # A point that was made after the clock was set back must not hide.
        time_ms = max(time_ms, 1 + _latest_ms(client, run, replaced))
        log_points(client, run.info.run_id, new, time_ms, run.data.tags.get(MODEL_TAG))
    return bool(new)


def _latest_ms(client: MlflowClient, run: Run, names: list[str]) -> int:
    histories = (client.get_metric_history(run.info.run_id, name) for name in names)
    return max((point.timestamp for history in histories for point in history), default=-1)


def set_tags(client: MlflowClient, run: Run, tags: Mapping[str, str]) -> bool:
    """Set those of `tags` that the run has with another value; whether there were any."""
    new = {tag: value for tag, value in tags.items() if run.data.tags.get(tag) != value}
    for tag, value in new.items():
        client.set_tag(run.info.run_id, tag, value)
    return bool(new)


def _log_content(client: MlflowClient, run: Run, content: RunContent, points: list[Point]) -> None:
    run_id = run.info.run_id
    log_params(client, run_id, content.params)
    # As while it was trained: a batch that a slow server takes up late doubles nothing.
    log_points(client, run_id, points, run.info.start_time)
    log_datasets(client, run_id, content.data, content.read)
    if content.record is not None:
        client.log_text(run_id, content.record, RECORD)
