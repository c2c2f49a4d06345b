"""Steps in MLflow while packs train: the record has the last word, and no run is left open."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from lorascope.files.layout import Layout
from lorascope.records import Status, TrialRecord
from lorascope.tracking import LivePack, LiveTracking, StartedTrial, publish, store_uri
from lorascope.tracking.connection import locked
from lorascope.tracking.content import live_run
from lorascope.tracking.liveness import Owner, close
from lorascope.tracking.points import Point, trial_points
from lorascope.tracking.runs import open_run
from tests.tracking.test_tracking import evaluation, provenance, result, silent_server, trial

SOON = 0.02


def started(record: TrialRecord) -> StartedTrial:
    unknown = dataclasses.replace(record.provenance, device="unknown", threads=0)
    return StartedTrial(record.trial, record.identity, record.key, record.settings, unknown)


def runs_of(layout: Layout, record: TrialRecord):  # type: ignore[no-untyped-def]
    """The client, and the active runs of a trial."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store_uri(layout))
    experiment = client.get_experiment_by_name(f"{record.key.model}/{record.key.data}")
    wanted = f"tags.`lorascope.identity` = '{record.identity}'"
    return client, client.search_runs([experiment.experiment_id], wanted) if experiment else []


def run_of(layout: Layout, record: TrialRecord):  # type: ignore[no-untyped-def]
    """The client, and the only active run of a trial; None where there is none yet."""
    client, found = runs_of(layout, record)
    assert len(found) <= 1
    return client, (found[0] if found else None)


def numbers(record: TrialRecord) -> Counter[Point]:
    """What a store has that never heard of the training."""
    return Counter(point for point in trial_points(record) if point.is_finite)


def points(client, run) -> Counter[Point]:  # type: ignore[no-untyped-def]
    """Every row of the run's numbers."""
    histories = ((n, client.get_metric_history(run.info.run_id, n)) for n in run.data.metrics)
    return Counter(Point(n, p.value, p.step) for n, history in histories for p in history)


def send(layout: Layout, record: TrialRecord, steps: slice) -> LiveTracking:
    """Train so many steps, as MLflow hears of it; what is returned is still open."""
    live = LiveTracking(layout, SOON).__enter__()
    live.end(train(live, record, steps))
    return live


def train(live: LiveTracking, record: TrialRecord, steps: slice) -> LivePack:
    """Begin a pack of so many steps, which MLflow has heard of."""
    pack = live.start([started(record)])
    assert record.result is not None
    for point in record.result.losses[steps]:
        pack.report([point], [])
    until(lambda: 0 in pack.runs and not pack.waiting[0])
    # Whoever held the lock has written the batch.
    with locked(live._layout):
        return pack


def until(reached: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not reached() and time.monotonic() < end:
        time.sleep(SOON)
    assert reached()


def test_a_record_takes_its_live_run_over_with_each_number_once(shared: Layout) -> None:
    record = trial("l1", outcome=result(steps=6))
    live = send(shared, record, slice(0, 4))
    client, open_run = run_of(shared, record)
    assert open_run.info.status == "RUNNING"
    assert open_run.data.params["settings.train.learning_rate"] == "0.001"
    done = publish([record], [], shared)
    live.__exit__()
    client, run = run_of(shared, record)
    assert done.runs[record.identity] == run.info.run_id == open_run.info.run_id
    assert points(client, run) == numbers(record)
    assert (run.info.status, run.data.params["device"]) == ("FINISHED", "cpu: test")
    assert run.info.end_time - run.info.start_time == 3500
    assert "lorascope.live" not in run.data.tags
    sweep = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert sweep.info.status == "FINISHED"
    assert publish([record], [], shared).trials_present == 1


def test_a_live_run_that_says_otherwise_than_the_record_is_written_anew(shared: Layout) -> None:
    record = trial("l2", outcome=result(steps=6))
    send(shared, record, slice(0, 2)).__exit__()
    other = dataclasses.replace(result(steps=6), losses=result(steps=6).losses[1:])
    ended = dataclasses.replace(record, result=other)
    _, before = run_of(shared, record)
    assert (before.info.status, before.data.tags["status"]) == ("KILLED", "killed")
    publish([ended], [], shared)
    client, run = run_of(shared, record)
    assert run.info.run_id != before.info.run_id
    assert points(client, run) == numbers(ended)


KILLED = """
import sys, time
from pathlib import Path
from lorascope.files.layout import Layout
from tests.tracking.test_live import send, trial, result
live = send(Layout(Path(sys.argv[1])), trial("l3", outcome=result(steps=6)), slice(0, 3))
print("open", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_the_runs_of_a_killed_sweep_are_closed_and_go_on_where_it_is_begun_again(
    shared: Layout,
) -> None:
    record = trial("l3", outcome=result(steps=6))
    publish([], [], shared)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(shared.root)], cwd=root, stdout=subprocess.PIPE
    ) as sweep:
        assert sweep.stdout is not None
        assert sweep.stdout.readline() == b"open\n"
        publish([], [], shared)
        assert run_of(shared, record)[1].info.status == "RUNNING"
        os.kill(sweep.pid, signal.SIGKILL)
    publish([], [], shared)
    _, dead = run_of(shared, record)
    assert dead.info.status == "KILLED"
    assert not list((shared.private / "live").glob("*"))
    # From a checkpoint before the last step that was sent.
    send(shared, record, slice(1, 5)).__exit__()
    publish([record], [], shared)
    client, run = run_of(shared, record)
    assert run.info.run_id == dead.info.run_id
    assert points(client, run) == numbers(record)


def test_a_server_that_never_answers_costs_a_pack_seconds_at_most(tmp_path: Path) -> None:
    record = dataclasses.replace(trial("l4"), provenance=provenance(3))
    assert record.result is not None
    with silent_server(Layout(tmp_path)), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lorascope.tracking.live.PATIENCE_SECONDS", 0.3)
        begun = time.monotonic()
        with LiveTracking(Layout(tmp_path), SOON) as live:
            pack = live.start([started(record)])
            time.sleep(0.2)
            pack.report(record.result.losses[:1], [])
            live.end(pack)
        assert time.monotonic() - begun < 3


def test_a_pack_that_is_tried_again_sends_no_step_twice(shared: Layout) -> None:
    record = trial("l5", outcome=result(steps=6))
    live = send(shared, record, slice(0, 3))
    live.end(train(live, record, slice(0, 5)))
    client, run = run_of(shared, record)
    assert max(points(client, run).values()) == 1
    publish([record], [], shared)
    live.__exit__()
    assert points(client, run_of(shared, record)[1]) == numbers(record)


def test_a_pack_that_ends_while_others_write_opens_no_run_afterwards(shared: Layout) -> None:
    record = trial("l6", outcome=result(steps=6))
    with LiveTracking(shared, SOON) as live:
        with locked(shared):
            pack = live.start([started(record)])
            time.sleep(10 * SOON)
            live.end(pack)
        publish([record], [evaluation(record)], shared)
        time.sleep(10 * SOON)
    _, run = run_of(shared, record)
    assert (run.info.status, run.data.metrics["test_accuracy"]) == ("FINISHED", 0.75)


def test_a_batch_that_a_busy_store_holds_up_costs_the_pack_nothing_and_doubles_nothing(
    shared: Layout,
) -> None:
    record = trial("l7", outcome=result(steps=6))
    assert record.result is not None
    with LiveTracking(shared, SOON) as live:
        pack = train(live, record, slice(0, 2))
        with closing(sqlite3.connect(shared.root / "mlflow.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            for point in record.result.losses[2:]:
                pack.report([point], [])
            time.sleep(10 * SOON)
            begun = time.monotonic()
            live.end(pack)
            assert time.monotonic() - begun < SOON
            other.rollback()
        publish([record], [], shared)
    client, run = run_of(shared, record)
    assert points(client, run) == numbers(record)


def test_other_writers_come_in_between_while_a_whole_project_is_published(
    shared: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorascope.tracking.publication.TURN", 1)
    monkeypatch.setattr("lorascope.tracking.publication.TURN_SECONDS", 0.3)
    records = [trial("l12", rank=rank) for rank in range(1, 6)]
    publish([], [], shared)
    publisher = threading.Thread(target=publish, args=(records, [], shared))
    publisher.start()
    until(lambda: bool(runs_of(shared, records[0])[1]))
    with locked(shared):
        there = [len(runs_of(shared, record)[1]) for record in records]
    publisher.join()
    assert 1 <= sum(there) < len(records)


def test_an_old_failure_does_not_take_over_the_run_of_a_training_under_way(shared: Layout) -> None:
    record = dataclasses.replace(
        trial("l8", outcome=result(steps=6)), provenance=provenance(minute=3)
    )
    failed = dataclasses.replace(trial("l8", status=Status.failed), provenance=provenance(minute=1))
    with LiveTracking(shared, SOON) as live:
        pack = train(live, record, slice(0, 2))
        publish([failed], [evaluation(record)], shared)
        _, (training, old) = runs_of(shared, record)
        assert (training.info.status, training.data.tags["status"]) == ("RUNNING", "running")
        assert "test_accuracy" not in training.data.metrics
        live.end(pack)
        publish([failed, record], [evaluation(record)], shared)
    client, (ended, old) = runs_of(shared, record)
    assert (ended.info.run_id, ended.info.status) == (training.info.run_id, "FINISHED")
    assert old.data.tags["lorascope.superseded_by"] == ended.info.run_id
    scores = {point for point in points(client, ended) if point.name.startswith(("test", "lm"))}
    assert points(client, ended) - Counter(scores) == numbers(record)
    assert ended.data.metrics["test_accuracy"] == 0.75


def test_a_run_that_cannot_be_written_holds_up_no_other_one(
    shared: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorascope.tracking.live.FIRST_PAUSE_SECONDS", SOON)
    deleted, other = (trial(name, outcome=result(steps=6)) for name in ("l14", "l15"))
    with LiveTracking(shared, SOON) as live:
        pack = train(live, deleted, slice(0, 1))
        client, run = run_of(shared, deleted)
        client.delete_run(run.info.run_id)
        assert deleted.result is not None
        pack.report(deleted.result.losses[1:2], [])
        # It waits until the store has heard of these.
        live.end(train(live, other, slice(0, 3)))
        assert pack.waiting[0]


def _with_first(run: Any, runs: Sequence[Any]) -> tuple[Any, Any]:
    """`runs` as they are now, two of them, that of `run` first."""
    first, second = sorted(runs, key=lambda one: one.info.run_id != run.info.run_id)
    assert first.info.run_id == run.info.run_id
    return first, second


def test_an_old_failure_does_not_take_over_its_own_run_that_a_new_training_goes_on_with(
    shared: Layout,
) -> None:
    """The run was begun by the failed attempt, which was not published when it ended."""
    record = dataclasses.replace(
        trial("l13", outcome=result(steps=6)), provenance=provenance(minute=3)
    )
    failed = dataclasses.replace(
        trial("l13", status=Status.failed), provenance=provenance(minute=1)
    )
    send(shared, failed_as_begun(failed, record), slice(0, 2)).__exit__()
    _, before = run_of(shared, record)
    with LiveTracking(shared, SOON) as live:
        pack = train(live, record, slice(0, 3))
        publish([failed], [], shared)
        # Both began at the same time.
        training, _ = _with_first(before, runs_of(shared, record)[1])
        assert (training.info.status, training.data.tags["status"]) == ("RUNNING", "running")
        live.end(pack)
        publish([record], [], shared)
    client, runs = runs_of(shared, record)
    ended, old = _with_first(before, runs)
    assert ended.info.status == "FINISHED"
    assert points(client, ended) == numbers(record)
    assert "lorascope.live_since" not in ended.data.tags
    assert old.data.tags["lorascope.superseded_by"] == ended.info.run_id


def failed_as_begun(failed: TrialRecord, record: TrialRecord) -> TrialRecord:
    """As it was trained before it failed: the steps of `record`, at its own hour."""
    return dataclasses.replace(record, provenance=failed.provenance)


def test_a_store_that_fails_for_a_while_is_tried_again_and_lacks_no_step(
    shared: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lorascope.tracking.live.FIRST_PAUSE_SECONDS", SOON)
    record = trial("l14", outcome=result(steps=6))
    assert record.result is not None
    with LiveTracking(shared, SOON) as live:
        pack = train(live, record, slice(0, 2))
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr("mlflow.MlflowClient.log_batch", _unreachable)
                pack.report(record.result.losses[2:3], [])
                until(live._failed.is_set)
            until(lambda: not live._failed.is_set())
        for point in record.result.losses[3:]:
            pack.report([point], [])
        until(lambda: not pack.waiting[0])
        client, run = run_of(shared, record)
        with locked(shared):
            sent = {p: n for p, n in numbers(record).items() if p.name in run.data.metrics}
            assert points(client, run) == sent
            assert {point.step for point in sent} == {1, 2, 3, 4, 5, 6}
        live.end(pack)
    assert capsys.readouterr().err.count("steps do not reach MLflow") == 1


def _unreachable(*_: object, **__: object) -> None:
    raise OSError(111, "Connection refused.")


def test_two_clones_at_one_store_leave_each_others_runs_alone(
    shared: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(shared))
    ours = trial("l9", outcome=result(steps=6))
    theirs = dataclasses.replace(ours, provenance=provenance(minute=2))
    here, there = (
        send(layout, one, slice(0, 3))
        for layout, one in ((shared, ours), (Layout(tmp_path), theirs))
    )
    publish([theirs], [], Layout(tmp_path))
    client, (second, first) = runs_of(shared, ours)
    assert (first.info.status, second.info.status) == ("RUNNING", "FINISHED")
    sweep = client.get_run(first.data.tags["mlflow.parentRunId"])
    assert sweep.data.tags["lorascope.live"] == first.data.tags["lorascope.live"]
    publish([ours], [], shared)
    here.__exit__()
    there.__exit__()
    client, both = runs_of(shared, ours)
    assert [run.info.status for run in both] == ["FINISHED"] * 2
    assert [points(client, run) for run in both] == [numbers(ours)] * 2


def test_each_sweep_under_way_has_the_load_of_the_machine_and_no_other(shared: Layout) -> None:
    records = [trial("l10", rate=rate, outcome=result(steps=2)) for rate in (1e-3, 2e-3, 3e-3)]
    name = "system/cpu_utilization_percentage"
    client, _ = runs_of(shared, records[0])
    with LiveTracking(shared, SOON) as live:
        ended, *packs = [train(live, record, slice(0, 1)) for record in records]
        live.end(ended)
        (first,), (second,), (third,) = (pack.sweeps for pack in (ended, *packs))
        with locked(shared):
            before = [len(client.get_metric_history(one, name)) for one in (first, third)]
        until(lambda: len(client.get_metric_history(third, name)) > before[1] + 1)
        for pack in packs:
            live.end(pack)
    # A sample may have been under way.
    assert len(client.get_metric_history(first, name)) <= before[0] + 1
    sweeps = [client.get_run(one) for one in (first, second, third)]
    assert sweeps[1].data.metrics[name] == sweeps[2].data.metrics[name]
    assert {sweep.info.status for sweep in sweeps} == {"FINISHED"}
    assert not any("lorascope.live" in sweep.data.tags for sweep in sweeps)


def test_a_run_has_its_writers_token_from_its_creation(
    shared: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = trial("l11")
    publish([dataclasses.replace(record, identity="another")], [], shared)
    client, _ = runs_of(shared, record)
    experiment = client.get_experiment_by_name("l11/biographies").experiment_id
    content = live_run(started(record), "parent")
    with monkeypatch.context() as patch:
        # As if the process were killed where parameters are logged.
        patch.setattr("mlflow.MlflowClient.log_batch", None)
        with pytest.raises(TypeError):
            open_run(client, experiment, content, "token")
    assert close(client, "token") == 1
    _, run = run_of(shared, record)
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "killed")


def test_an_owner_that_another_thread_releases_is_free(tmp_path: Path) -> None:
    owners: list[Owner] = []
    maker = threading.Thread(target=lambda: owners.append(Owner(Layout(tmp_path))))
    maker.start()
    maker.join()
    (path,) = (Layout(tmp_path).private / "live").glob("*.lock")
    os.link(path, tmp_path / "same")
    with pytest.raises(Timeout):
        FileLock(tmp_path / "same", timeout=0).acquire()
    owners[0].release()
    FileLock(tmp_path / "same", timeout=0).acquire()
    assert not path.exists()
