"""Steps in MLflow while packs train: the record has the last word, and no run is left open."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from lorascope.files.layout import Layout
from lorascope.records import TrialRecord
from lorascope.tracking import LiveTracking, StartedTrial, publish, store_uri
from lorascope.tracking.points import Point, trial_points
from tests.tracking.test_tracking import provenance, result, silent_server, trial

SOON = 0.02


def started(record: TrialRecord) -> StartedTrial:
    unknown = dataclasses.replace(record.provenance, device="unknown", threads=0)
    return StartedTrial(record.trial, record.identity, record.key, record.settings, unknown)


def run_of(layout: Layout, record: TrialRecord):  # type: ignore[no-untyped-def]
    """The client, and the only active run of a trial; None where there is none yet."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store_uri(layout))
    experiment = client.get_experiment_by_name(f"{record.key.model}/{record.key.data}")
    wanted = f"tags.`lorascope.identity` = '{record.identity}'"
    found = client.search_runs([experiment.experiment_id], wanted) if experiment else []
    assert len(found) <= 1
    return client, (found[0] if found else None)


def points(client, run) -> Counter[Point]:  # type: ignore[no-untyped-def]
    """Every row of the run's numbers."""
    histories = ((n, client.get_metric_history(run.info.run_id, n)) for n in run.data.metrics)
    return Counter(Point(n, p.value, p.step) for n, history in histories for p in history)


def send(layout: Layout, record: TrialRecord, steps: slice, seconds: float = 20.0) -> LiveTracking:
    """Train so many steps, as MLflow hears of it; what is returned is still open."""
    live = LiveTracking(layout, SOON).__enter__()
    pack = live.start([started(record)])
    assert record.result is not None
    told = record.result.losses[steps]
    for point in told:
        pack.report([point], [])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client, run = run_of(layout, record) if (layout.root / "mlflow.db").exists() else (0, None)
        if run and Point("train_loss_nats", told[-1].loss_nats, told[-1].step) in points(
            client, run
        ):
            break
        time.sleep(SOON)
    live.end(pack)
    return live


def test_a_record_takes_its_live_run_over_with_each_number_once(shared: Layout) -> None:
    record = trial("l1", outcome=result(steps=6))
    live = send(shared, record, slice(0, 4))
    client, open_run = run_of(shared, record)
    assert open_run.info.status == "RUNNING"
    assert open_run.data.params["settings.train.learning_rate"] == "0.001"
    done = publish([record], [], shared)
    live.leave([record.identity])
    live.__exit__()
    client, run = run_of(shared, record)
    assert done.runs[record.identity] == run.info.run_id == open_run.info.run_id
    # As a store has it that never heard of the training.
    assert points(client, run) == Counter(p for p in trial_points(record) if p.is_finite)
    assert (run.info.status, run.data.params["device"]) == ("FINISHED", "cpu: test")
    assert run.info.end_time - run.info.start_time == 3500
    assert "lorascope.live" not in run.data.tags
    sweep = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert sweep.info.status == "FINISHED"
    assert "system/cpu_utilization_percentage" in sweep.data.metrics
    assert publish([record], [], shared).trials_present == 1


def test_a_live_run_that_says_otherwise_than_the_record_is_written_anew(shared: Layout) -> None:
    record = trial("l2", outcome=result(steps=6))
    send(shared, record, slice(0, 2)).__exit__()
    other = dataclasses.replace(result(steps=6), losses=result(steps=6).losses[1:])
    ended = dataclasses.replace(record, result=other)
    _, before = run_of(shared, record)
    assert before.info.status == "KILLED"
    publish([ended], [], shared)
    client, run = run_of(shared, record)
    assert run.info.run_id != before.info.run_id
    assert points(client, run) == Counter(p for p in trial_points(ended) if p.is_finite)


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
    assert points(client, run) == Counter(p for p in trial_points(record) if p.is_finite)


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
