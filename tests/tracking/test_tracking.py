"""Tracking against a real MLflow on SQLite: what a reader of the store finds there."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record, sha256_of_file, write_record
from lorascope.records import (
    EvaluationRecord,
    ItemResult,
    LossPoint,
    PhaseMemory,
    Provenance,
    ServedForm,
    SplitScore,
    Status,
    TakenOver,
    TrainingResult,
    TrialKey,
    TrialRecord,
)
from lorascope.scoring.items import summarize, write_items
from lorascope.stages import publish as publish_stage
from lorascope.tracking import (
    TrackingError,
    connection,
    publish,
    store_uri,
    try_publish,
    ui_command,
)
from lorascope.tracking.connection import ENVIRONMENT
from lorascope.tracking.points import metric_name
from tests.study_factory import lora_dials

BUDGET_SECONDS = 30.0
"""Longest time that a store out of reach may cost a run."""
REQUEST_SECONDS = "MLFLOW_HTTP_REQUEST_TIMEOUT"


def provenance(minute: int = 0) -> Provenance:
    return Provenance(
        git_commit="c" * 40,
        git_dirty=True,
        dvc_lock_sha256="d" * 64,
        versions={"torch": "2.13.0"},
        python="3.11.0",
        platform="Linux",
        device="cpu: test",
        threads=2,
        created_utc=f"2026-01-02T03:{minute:02d}:05+00:00",
    )


def result(steps: int = 3, loss_nats: float = 0.5) -> TrainingResult:
    losses = [
        LossPoint(step, 1.0 / step, 1e-3 * step, None if step == 1 else 0.25 * step)
        for step in range(1, steps + 1)
    ]
    memory = {"train": PhaseMemory(4096, None, None), "load": PhaseMemory(None, 10, 20)}
    return TrainingResult(
        trainable_parameters=1024, total_parameters=4096, adapter_bytes=4096, optimizer_bytes=8192,
        model_bytes=2048, compute_dtype="float32", attention="sdpa", steps=steps,
        trainable_percent=1.5,
        resumed_at_step=0, processed_tokens=600, tokens_per_second=123.5, load_seconds=1.0,
        train_seconds=2.0, evaluate_seconds=0.5, train_loss_nats=1.0 / steps,
        validation_loss_nats=loss_nats, losses=losses, memory=memory, adapter_sha256="a" * 64,
    )  # fmt: skip


def trial(
    model: str,
    rank: int = 8,
    seed: int = 0,
    rate: float = 1e-3,
    status: Status = Status.completed,
    outcome: TrainingResult | None = None,
) -> TrialRecord:
    failed = status is not Status.completed
    settings: dict[str, object] = {
        "base": "b" * 64,
        "data": "e" * 64,
        "quant": {"storage": "nf4"},
        "lora": {"rank": rank, "alpha": 16.0, "dropout": 0.0, "modules": ["q_proj", "v_proj"]},
        "train": {"learning_rate": rate, "steps": None},
        "seed": seed,
        "code": "f" * 64,
    }
    identity = f"{model}-{rank}-{seed}-{rate}".encode().hex()
    return TrialRecord(
        trial=f"nf4-r{rank:04d}-a0016-s{seed}-{identity[-10:]}",
        identity=identity,
        key=TrialKey(model, "biographies", "nf4", "lora", "all_linear", lora_dials(rank), seed),
        settings=settings,
        status=status,
        reason="loss was nan at step 2" if failed else None,
        last_lines=["step 2: nan"] if failed else [],
        result=None if failed else (outcome or result()),
        tracking="off",
        provenance=provenance(),
    )


def evaluation(of: TrialRecord, accuracy: float | None = 0.75, minute: int = 1) -> EvaluationRecord:
    score = SplitScore(40, accuracy, None if accuracy is None else 0.068, 0.25)
    return EvaluationRecord(
        name=of.trial, identity=f"evaluation-{minute}", quant="nf4", trial_identity=of.identity,
        key=of.key, scoring="choices", batch_size=64, splits={"test": score},
        lm_eval_metrics={"arc/acc,none": 0.5, "arc/odd,none": math.inf}, items_sha256={},
        seconds=1.0, provenance=provenance(minute),
    )  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another working folder, which must stay empty."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def client(layout: Layout):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store_uri(layout))


def runs(layout: Layout, model: str):  # type: ignore[no-untyped-def]
    """(parents by name, children by trial name) of one model's experiment."""
    reader = client(layout)
    experiment = reader.get_experiment_by_name(f"{model}/biographies")
    found = reader.search_runs([experiment.experiment_id], max_results=1000)
    children = {r.info.run_name: r for r in found if "mlflow.parentRunId" in r.data.tags}
    parents = {r.info.run_name: r for r in found if "mlflow.parentRunId" not in r.data.tags}
    return parents, children


def everything(layout: Layout) -> list[tuple[object, ...]]:
    """Every row of runs, params, metrics and tags, as the database has them."""
    database = sqlite3.connect(layout.root / "mlflow.db")
    tables = ("runs", "params", "metrics", "latest_metrics", "tags", "inputs", "datasets")
    rows = [row for table in tables for row in database.execute(f"select * from {table}")]
    database.close()
    return rows


def test_trials_that_differ_in_rank_and_seed_share_one_parent_run(
    shared: Layout, elsewhere: Path
) -> None:
    trials = [trial("m1", rank=4), trial("m1", rank=8), trial("m1", rank=8, seed=1)]
    done = publish([*trials, trial("m1", rank=4, rate=5e-3)], [], shared)
    assert (done.sweeps_added, done.trials_added, done.trials_present) == (2, 4, 0)
    assert done.where == "sqlite:///mlflow.db"
    parents, children = runs(shared, "m1")
    assert len(parents) == 2
    of_parent = {r.info.run_id: r for r in parents.values()}
    by_parent = [children[t.trial].data.tags["mlflow.parentRunId"] for t in trials]
    assert len(set(by_parent)) == 1
    assert of_parent[by_parent[0]].data.params["settings.train.learning_rate"] == "0.001"
    assert "settings.lora.rank" not in of_parent[by_parent[0]].data.params
    assert {r.info.status for r in [*parents.values(), *children.values()]} == {"FINISHED"}


def test_a_trial_has_its_settings_numbers_and_origin(shared: Layout, elsewhere: Path) -> None:
    record = trial("m2")
    publish([record], [], shared)
    run = runs(shared, "m2")[1][record.trial]
    assert run.data.params["rank"] == "8"
    assert run.data.params["settings.lora.modules"] == '["q_proj", "v_proj"]'
    assert run.data.params["settings.train.steps"] == "null"
    assert run.data.params["settings.data"] == "e" * 64
    assert run.data.params["device"] == "cpu: test"
    assert run.data.metrics["validation_loss_nats"] == 0.5
    assert run.data.metrics["trainable_parameters"] == 1024
    assert run.data.metrics["memory_train_resident_growth_bytes"] == 4096
    assert "memory_train_allocated_peak_bytes" not in run.data.metrics
    tags = run.data.tags
    assert (tags["lorascope.git_commit"], tags["lorascope.git_dirty"]) == ("c" * 40, "true")
    assert (tags["lorascope.dvc_lock_sha256"], tags["version.torch"]) == ("d" * 64, "2.13.0")
    assert (tags["lorascope.identity"], tags["status"]) == (record.identity, "completed")
    assert run.info.end_time - run.info.start_time == 3500
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("biographies", "e" * 36)


def test_the_record_is_an_artifact_below_the_project(shared: Layout, elsewhere: Path) -> None:
    record = trial("m3")
    publish([record], [], shared)
    run = runs(shared, "m3")[1][record.trial]
    (artifact,) = client(shared).list_artifacts(run.info.run_id)
    assert artifact.path == RECORD
    (file,) = (shared.root / "mlartifacts").glob(f"{run.info.run_id}/artifacts/{RECORD}")
    assert json.loads(file.read_text())["identity"] == record.identity


def test_losses_are_steps_of_a_curve_longer_than_one_batch(shared: Layout) -> None:
    record = trial("m4", outcome=result(steps=700))
    publish([record], [], shared)
    run = runs(shared, "m4")[1][record.trial]
    curve = client(shared).get_metric_history(run.info.run_id, "train_loss_nats")
    assert [(p.step, p.value) for p in sorted(curve, key=lambda p: p.step)] == [
        (step, 1.0 / step) for step in range(1, 701)
    ]
    norms = client(shared).get_metric_history(run.info.run_id, "gradient_norm")
    assert len(norms) == 699


def test_publishing_twice_changes_no_row(shared: Layout) -> None:
    trials = [trial("m5", rank=4), trial("m5", rank=8)]
    scores = [evaluation(record) for record in trials]
    publish(trials, scores, shared)
    before = everything(shared)
    done = publish(trials, scores, shared)
    assert everything(shared) == before
    assert (done.sweeps_added, done.trials_added, done.trials_present) == (0, 0, 2)
    assert (done.evaluations_added, done.evaluations_present) == (0, 2)
    known = {run.info.run_id: name for name, run in runs(shared, "m5")[1].items()}
    assert [known[done.runs[record.identity]] for record in trials] == [t.trial for t in trials]


def test_a_trial_that_was_taken_over_keeps_its_run(shared: Layout) -> None:
    former = trial("m21")
    before = publish([former], [evaluation(former)], shared)
    renamed = dataclasses.replace(
        former, trial="nf4-r0004-a0016-s0-9876543210", identity="9876543210",
        taken_over=TakenOver(former.trial, former.identity, "code 3fbf8ffcb3", assumed=False),
    )  # fmt: skip
    done = publish([renamed], [evaluation(renamed)], shared)
    assert (done.trials_added, done.trials_present) == (0, 1)
    (run,) = runs(shared, "m21")[1].values()
    assert run.info.run_id == before.runs[former.identity] == done.runs[renamed.identity]
    assert (run.info.run_name, run.data.tags["lorascope.identity"]) == (
        renamed.trial, renamed.identity,
    )  # fmt: skip


def test_scores_that_come_later_are_added_to_the_trials_run(shared: Layout) -> None:
    record = trial("m6")
    publish([record], [], shared)
    done = publish([], [evaluation(record)], shared)
    assert (done.trials_added, done.evaluations_added) == (0, 1)
    metrics = runs(shared, "m6")[1][record.trial].data.metrics
    assert metrics["test_accuracy"] == 0.75
    assert metrics["test_completion_loss_nats"] == 0.25
    assert metrics["lm_eval/arc/acc_none"] == 0.5
    assert "lm_eval/arc/odd_none" not in metrics


def test_of_two_evaluations_of_a_trial_the_newer_one_shows_in_any_order(shared: Layout) -> None:
    record = trial("m7")
    older, newer = evaluation(record, 0.5, minute=1), evaluation(record, 0.9, minute=2)
    publish([record], [older], shared)
    assert publish([record], [newer, older], shared).evaluations_added == 1
    assert publish([record], [older, newer], shared).evaluations_added == 0
    assert runs(shared, "m7")[1][record.trial].data.metrics["test_accuracy"] == 0.9


def test_a_served_form_has_metrics_of_its_own_in_its_trials_run(shared: Layout) -> None:
    record = trial("m7s")
    form = ServedForm("int4_sym", {}, 300_000, 299_936, 4.5, "digest")
    merged = dataclasses.replace(
        evaluation(record, 0.5, minute=2), name=f"{record.trial}@int4_sym", served=form
    )
    assert publish([record], [evaluation(record), merged], shared).evaluations_added == 2
    run = runs(shared, "m7s")[1][record.trial].data
    assert (run.metrics["test_accuracy"], run.metrics["int4_sym/test_accuracy"]) == (0.75, 0.5)
    assert run.metrics["int4_sym/lm_eval/arc/acc_none"] == 0.5
    assert run.tags["lorascope.evaluation"] == "evaluation-1"
    assert run.tags["lorascope.evaluation.int4_sym"] == "evaluation-2"


def test_scores_without_a_run_are_counted_and_not_an_error(shared: Layout) -> None:
    base = dataclasses.replace(evaluation(trial("m8")), trial_identity=None, key=None, name="base")
    done = publish([], [base, evaluation(trial("m8"))], shared)
    assert (done.evaluations_added, done.evaluations_without_trial) == (0, 2)


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.completed])
def test_a_trial_that_did_not_complete_is_closed_as_failed_with_its_reason(
    shared: Layout, status: Status
) -> None:
    record = trial(f"m9-{status}", status=status)
    publish([record], [], shared)
    run = runs(shared, f"m9-{status}")[1][record.trial]
    assert run.info.status == "FAILED"
    assert run.info.end_time is not None
    assert run.data.tags["status"] == status.value
    assert "loss was nan at step 2" in run.data.tags["mlflow.note.content"]


def test_a_number_that_is_not_finite_is_a_tag_and_no_metric(shared: Layout) -> None:
    record = trial("m10", outcome=result(loss_nats=math.nan))
    publish([record], [], shared)
    run = runs(shared, "m10")[1][record.trial]
    assert "validation_loss_nats" not in run.data.metrics
    assert run.data.tags["lorascope.not_finite"] == "validation_loss_nats@0=nan"


def test_a_long_setting_is_cut_and_an_odd_name_mended(shared: Layout) -> None:
    record = trial("m11")
    settings = {**record.settings, "long": "x" * 9000, "odd,name@[0]": 1}
    publish([dataclasses.replace(record, settings=settings)], [], shared)
    params = runs(shared, "m11")[1][record.trial].data.params
    assert params["settings.long"] == "x" * 6000
    assert params["settings.odd_name__0_"] == "1"


@pytest.mark.parametrize(
    ("name", "valid"),
    [("arc/acc,none", "arc/acc_none"), ("a//b/../c", "a/c"), ("/../x", "x"), ("", "_")],
)
def test_metric_names_become_valid(name: str, valid: str) -> None:
    assert metric_name(name) == valid


def test_a_run_that_breaks_off_is_closed_as_failed_and_completed_by_the_next_publishing(
    shared: Layout,
) -> None:
    artifacts = shared.root / "mlartifacts"
    kept = artifacts.with_name("kept")
    publish([trial("m12", rank=1)], [], shared)
    artifacts.rename(kept)
    artifacts.write_text("a file where the folder should be")
    record = trial("m12", rank=2)
    try:
        assert try_publish([record], [], shared).state != "published"
    finally:
        artifacts.unlink()
        kept.rename(artifacts)
    broken = runs(shared, "m12")[1][record.trial]
    assert broken.info.status == "FAILED"
    assert publish([record], [], shared).trials_added == 1
    mended = runs(shared, "m12")[1][record.trial]
    assert (mended.info.run_id, mended.info.status) == (broken.info.run_id, "FINISHED")
    curve = client(shared).get_metric_history(mended.info.run_id, "train_loss_nats")
    assert len(curve) == 3


def test_an_experiment_opens_as_one_of_trainings_unless_somebody_chose_another_view(
    shared: Layout,
) -> None:
    kind = "mlflow.experimentKind"
    reader = client(shared)
    older = reader.create_experiment(
        "m22/biographies", artifact_location=(shared.root.resolve() / "mlartifacts").as_uri()
    )
    publish([trial("m22")], [], shared)
    assert reader.get_experiment(older).tags[kind] == "custom_model_development"
    reader.set_experiment_tag(older, kind, "genai_development")
    publish([trial("m22")], [], shared)
    assert reader.get_experiment(older).tags[kind] == "genai_development"


def test_runs_and_experiments_that_somebody_deleted_are_refilled(shared: Layout) -> None:
    record = trial("m13")
    publish([record], [], shared)
    client(shared).delete_run(runs(shared, "m13")[1][record.trial].info.run_id)
    assert publish([record], [], shared).trials_added == 1
    experiment = client(shared).get_experiment_by_name("m13/biographies")
    client(shared).delete_experiment(experiment.experiment_id)
    publish([record], [], shared)
    assert list(runs(shared, "m13")[1]) == [record.trial]


def test_trials_whose_parent_somebody_deleted_get_a_new_one(shared: Layout) -> None:
    trials = [trial("m20", rank=4, status=Status.killed), trial("m20", rank=8)]
    again = dataclasses.replace(trial("m20", rank=4), provenance=provenance(minute=9))
    publish([*trials, again], [evaluation(again)], shared)
    ((_, parent),) = runs(shared, "m20")[0].items()
    client(shared).delete_run(parent.info.run_id)
    done = publish([trials[1], again], [evaluation(again)], shared)
    assert (done.sweeps_added, done.trials_added, done.trials_present) == (1, 0, 2)
    reader = client(shared)
    experiment = reader.get_experiment_by_name("m20/biographies").experiment_id
    ((_, healed),) = runs(shared, "m20")[0].items()
    found = reader.search_runs([experiment], "tags.`lorascope.trial` LIKE 'nf4%'")
    # The attempt that was killed too.
    assert len(found) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in found} == {healed.info.run_id}
    before = everything(shared)
    publish([trials[1], again], [evaluation(again)], shared)
    assert everything(shared) == before


def test_a_trial_that_ran_again_gets_another_run_and_the_scores(shared: Layout) -> None:
    killed = trial("m16", status=Status.killed)
    again = dataclasses.replace(trial("m16"), provenance=provenance(minute=9))
    publish([killed], [], shared)
    done = publish([again], [evaluation(again)], shared)
    assert (done.trials_added, done.evaluations_added) == (1, 1)
    reader = client(shared)
    experiment = reader.get_experiment_by_name("m16/biographies").experiment_id
    of_trial = f"tags.`lorascope.trial` = '{again.trial}'"
    latest, earlier = reader.search_runs([experiment], of_trial, order_by=["start_time DESC"])
    assert (latest.info.status, earlier.info.status) == ("FINISHED", "FAILED")
    assert earlier.data.tags["lorascope.superseded_by"] == latest.info.run_id
    assert latest.data.metrics["test_accuracy"] == 0.75
    assert publish([again], [evaluation(again)], shared).trials_present == 1


def test_what_is_made_after_the_clock_was_set_back_shows_all_the_same(shared: Layout) -> None:
    killed = dataclasses.replace(trial("m19", status=Status.killed), provenance=provenance(9))
    again = trial("m19")
    older, newer = evaluation(again, 0.5, minute=8), evaluation(again, 0.9, minute=2)
    publish([killed], [], shared)
    publish([again], [older], shared)
    assert publish([again], [newer], shared).evaluations_added == 1
    assert publish([again], [newer], shared).evaluations_added == 0
    reader = client(shared)
    experiment = reader.get_experiment_by_name("m19/biographies").experiment_id
    found = reader.search_runs([experiment], f"tags.`lorascope.trial` = '{again.trial}'")
    (latest,) = [run for run in found if "lorascope.superseded_by" not in run.data.tags]
    assert (latest.info.status, latest.data.metrics["test_accuracy"]) == ("FINISHED", 0.9)
    assert latest.info.end_time >= latest.info.start_time


def test_a_record_read_back_with_another_tracking_note_is_the_same_run(
    shared: Layout, tmp_path: Path
) -> None:
    record = trial("m17", outcome=dataclasses.replace(result(), load_seconds=1))
    publish([record], [], shared)
    write_record(tmp_path, dataclasses.replace(record, tracking="no store"))
    assert publish([read_record(tmp_path, TrialRecord)], [], shared).trials_present == 1


def test_a_database_that_came_with_a_moved_project_is_refused(
    shared: Layout, tmp_path: Path
) -> None:
    publish([trial("m18")], [], shared)
    moved = Layout(tmp_path / "moved")
    moved.root.mkdir()
    shutil.copy(shared.root / "mlflow.db", moved.root)
    reason = try_publish([trial("m18")], [], moved).state
    assert "moved or copied" in reason
    assert not (moved.root / "mlartifacts").exists()


def test_a_server_that_nobody_runs_is_a_short_reason_soon_and_without_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    start = time.monotonic()
    reason = try_publish([trial("x")], [], Layout(tmp_path)).state
    assert time.monotonic() - start < BUDGET_SECONDS
    assert reason.startswith("http://127.0.0.1:9: ")
    assert "refused" in reason
    assert "secret" not in reason
    assert "\n" not in reason
    assert len(reason) < 80
    assert reason in capsys.readouterr().err


def test_a_locked_database_is_a_reason_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DATABASE_SECONDS", 0.1)
    holder = sqlite3.connect(tmp_path / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    reason = try_publish([trial("x")], [], Layout(tmp_path)).state
    holder.close()
    assert reason == "sqlite:///mlflow.db: database is locked"
    assert time.monotonic() - start < BUDGET_SECONDS


HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked_by_another(layout: Layout) -> Iterator[str]:
    command = [sys.executable, "-c", HOLD, str(layout.root / "mlflow.db")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield "database is locked"
        assert holder.stdin is not None
        holder.stdin.close()


@contextmanager
def silent_server(layout: Layout) -> Iterator[str]:
    """It takes every request and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.MonkeyPatch.context() as patch:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        patch.setenv("MLFLOW_TRACKING_URI", address)
        patch.setenv(REQUEST_SECONDS, "2")
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("outage", [locked_by_another, silent_server])
def test_publish_fills_in_what_an_outage_left_out(
    recorded: Layout, capsys: pytest.CaptureFixture[str],
    outage: Callable[[Layout], AbstractContextManager[str]],
) -> None:  # fmt: skip
    paths = sorted(recorded.trials("nf4").glob(f"*/{RECORD}"))
    records = [read_record(path.parent, TrialRecord) for path in paths]
    with outage(recorded) as reason:
        start = time.monotonic()
        attempts = [try_publish([record], [], recorded) for record in records]
        # Two requests to a silent server wait for 2 s each here, and for longer unasked.
        unasked = 2 * (int(ENVIRONMENT[REQUEST_SECONDS]) - 2)
        assert time.monotonic() - start < BUDGET_SECONDS - unasked
    assert all(reason in attempt.state for attempt in attempts)
    told = capsys.readouterr().err
    assert told.count("not published to MLflow") == 1
    assert "`lorascope publish` fills it in later" in told
    assert publish_stage.command([], recorded, {}, []) == 0
    assert "4 trials added, 0 there already" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["folder", "other file", "read-only"])
def test_a_database_that_cannot_be_written_is_a_reason_soon(tmp_path: Path, kind: str) -> None:
    database = tmp_path / "mlflow.db"
    if kind == "folder":
        database.mkdir()
    elif kind == "other file":
        database.write_bytes(b"not a database, " * 100)
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write everything")
        database.touch(mode=0o444)
    start = time.monotonic()
    reason = try_publish([trial("x")], [], Layout(tmp_path)).state
    assert reason.startswith("sqlite:///mlflow.db: ")
    assert time.monotonic() - start < BUDGET_SECONDS


def test_a_database_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """Making one takes seconds, in which somebody may stop the sweep."""
    layout = Layout(tmp_path)
    unfinished = layout.private / "mlflow.db.new"
    code = (
        "import sys, time; from pathlib import Path; from lorascope.files.layout import Layout\n"
        "from lorascope.tracking.connection import prepare_in_background\n"
        "prepare_in_background(Layout(Path(sys.argv[1])))\n"
        f"while not Path({str(unfinished)!r}).exists(): time.sleep(0.001)\n"
    )
    # Ends while the database is being made.
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert unfinished.is_file()
    assert not (tmp_path / "mlflow.db").exists()
    assert try_publish([trial("made")], [], layout).state == "published"
    assert not unfinished.exists()


def test_the_store_lies_in_the_project_unless_the_address_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_uri(Layout(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    assert store_uri(Layout(Path("."))) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert store_uri(Layout(tmp_path)) == "http://tracker:5000"


def test_an_address_that_is_set_takes_the_runs_and_artifacts_stay_in_the_project(
    shared: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish([], [], shared)  # where this test runs alone, the store is not there yet
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(shared))
    project = Layout(tmp_path)
    record = trial("m14")
    publish([record], [], project)
    assert list(runs(shared, "m14")[1]) == [record.trial]
    assert len(list((tmp_path / "mlartifacts").glob("*/artifacts/record.json"))) == 1
    assert not (tmp_path / "mlflow.db").exists()


def test_the_pages_are_served_on_this_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_BACKEND_STORE_URI", raising=False)
    command = ui_command(Layout(tmp_path / "a b"))
    assert command[command.index("--host") + 1] == "127.0.0.1"
    # Not on the command line, which everybody on the machine can read.
    assert "--backend-store-uri" not in command
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/a b/mlflow.db"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_server_has_pages_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracker")
    with pytest.raises(TrackingError, match="https://tracker is a server") as caught:
        ui_command(Layout(tmp_path))
    assert "secret" not in str(caught.value)


def test_the_stage_publishes_every_record_and_reports_a_damaged_one(
    tmp_path: Path, shared: Layout, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    publish([], [], shared)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(shared))
    project, record = Layout(tmp_path), trial("m15")
    write_record(project.trials("nf4") / record.trial, record)
    folder = project.evaluations("nf4") / record.trial
    items = [ItemResult(f"i{n}", "p", "t", n % 4 > 0, 0.25, 1) for n in range(40)]
    write_items(folder / "test.jsonl", items)
    scores = dataclasses.replace(
        evaluation(record), lm_eval_metrics={"arc/acc,none": 0.5},
        splits={"test": summarize(items)},
        items_sha256={"test": sha256_of_file(folder / "test.jsonl")},
    )  # fmt: skip
    write_record(folder, scores)
    assert publish_stage.command([], project, {}, []) == 0
    assert "1 trials added" in capsys.readouterr().out
    assert runs(shared, "m15")[1][record.trial].data.metrics["test_accuracy"] == 0.75
    damaged = project.trials("int8") / "damaged" / RECORD
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    assert publish_stage.command([], project, {}, []) == 1
    told = capsys.readouterr()
    assert "1 there already" in told.out
    assert str(damaged) in told.err


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, lorascope.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_three_processes_on_a_fresh_store_lose_nothing_and_print_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lorascope.files.layout import Layout;"
        "from lorascope.tracking import publish; from test_tracking import trial;"
        "publish([trial('m', rank=int(sys.argv[2]))], [], Layout(Path(sys.argv[1])))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(rank)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(1, 4)
    ]
    printed = [worker.communicate(timeout=300)[0] for worker in workers]
    assert printed == [""] * 3
    parents, children = runs(Layout(tmp_path), "m")
    assert len(parents) == 1
    assert sorted(int(run.data.params["rank"]) for run in children.values()) == [1, 2, 3]
