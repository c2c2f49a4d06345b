"""Children and their files: results, events, errors, signals and time limits reach the parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest

from lorascope.errors import ConfigError
from lorascope.execution.child import answer
from lorascope.execution.engine import (
    OUTPUT,
    Event,
    FollowedJob,
    Job,
    Killed,
    Outcome,
    Slot,
    TrialOutcome,
    read_job,
    write_job,
)
from lorascope.execution.events import EventWriter
from lorascope.execution.local.slots import Child
from lorascope.files.layout import Layout
from lorascope.records import LossPoint, Status, ValidationPoint
from lorascope.training.progress import Progress, StepReport, Stopped, ValidationReport
from tests.conftest import compose_one

PRELOAD = "lorascope.execution.child"
REPOSITORY = Path(__file__).parents[2]


def start(body: Callable[[Path], None], fresh: bool = False) -> FollowedJob:
    folder = Path(mkdtemp())
    return FollowedJob(folder, Child(body, folder, PRELOAD, fresh))


def ignore(event: Event) -> None:
    pass


def run(body: Callable[[Path], None], seconds: float | None = None, fresh: bool = False) -> Outcome:
    return start(body, fresh).wait(ignore, seconds)


EVENTS: list[Event] = [
    StepReport(1, 2, [], 3),
    StepReport(
        2,
        2,
        [0.1, float("inf")],
        6,
        [LossPoint(2, 0.1, 1e-3, None, {"kl": 0.5}), None],
        [None, ValidationPoint(2, 0.3)],
    ),
    ValidationReport(0, 1),
]
TRIAL = TrialOutcome(Status.diverged, "at step 2", None, "cpu", 1)


def train(progress: Progress) -> Outcome:
    print("a line on standard output", flush=True)
    for event in EVENTS:
        progress(event)
    return Outcome([TRIAL])


def trained(folder: Path) -> None:
    answer(folder, train)


def test_a_child_of_one_of_joblibs_workers_gives_its_outcome() -> None:
    """`hydra/launcher=joblib` trains in such workers."""
    joblib = pytest.importorskip("joblib")
    outcomes = joblib.Parallel(n_jobs=2)(joblib.delayed(run)(trained) for _ in range(2))
    assert [outcome.trials for outcome in outcomes] == [[TRIAL], [TRIAL]]


@pytest.mark.parametrize("fresh", [False, True])
def test_an_outcome_and_its_events_come_back(fresh: bool) -> None:
    seen: list[Event] = []
    outcome = start(trained, fresh).wait(seen.append, None)
    assert outcome == Outcome([TRIAL], last_lines=["a line on standard output"])
    assert seen == EVENTS


def test_what_started_a_child_may_have_written_to_its_output(tmp_path: Path) -> None:
    (tmp_path / OUTPUT).write_text("a module that is long, loaded by a job script\n")
    outcome = FollowedJob(tmp_path, Child(trained, tmp_path, PRELOAD, False)).wait(ignore, None)
    assert outcome.last_lines == [
        "a module that is long, loaded by a job script", "a line on standard output",
    ]  # fmt: skip


def test_a_job_is_the_same_read_back(tmp_path: Path, bare_project: Layout) -> None:
    odd = compose_one(bare_project, "lora.rank=3", "train.learning_rate=0.1234567890123")
    configs = [odd, compose_one(bare_project, "quant=int8")]
    place = tmp_path / "some folder"
    job = Job(place, "small", place, place, configs, [place, place], Slot(2, 10**12))
    write_job(tmp_path, job)
    assert read_job(tmp_path) == job


def refuse(progress: Progress) -> Outcome:
    raise ConfigError("lora.rank", 0, "too small", "Try 8.")


def refused(folder: Path) -> None:
    answer(folder, refuse)


def test_bad_input_is_told_apart_and_keeps_its_stack_in_the_last_lines() -> None:
    outcome = run(refused)
    assert outcome.failure
    assert outcome.failure.is_input
    assert outcome.failure.reason == "lora.rank=0: too small. Try 8."
    assert any("in refuse" in line for line in outcome.last_lines)


def fill(progress: Progress) -> Outcome:
    raise OSError(28, "No space left on device", "some/file")


def filled(folder: Path) -> None:
    answer(folder, fill)


def test_a_full_disk_is_told_apart_with_its_place() -> None:
    failure = run(filled).failure
    assert failure
    assert (failure.is_full_disk, failure.is_input, failure.place) == (True, False, "some/file")


def die(folder: Path) -> None:
    def work(progress: Progress) -> Outcome:
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        return Outcome()

    answer(folder, work)


def test_a_killed_child_is_told_apart_and_keeps_its_last_words() -> None:
    outcome = run(die)
    assert outcome.exit_signal == signal.SIGKILL
    assert outcome.last_lines == ["about to die"]


def leave(folder: Path) -> None:
    def work(progress: Progress) -> Outcome:
        print("leaving", flush=True)
        os._exit(3)

    answer(folder, work)


def leave_quietly(folder: Path) -> None:
    os._exit(0)


@pytest.mark.parametrize(("body", "words"), [(leave, "3:\nleaving"), (leave_quietly, "0:")])
def test_a_child_that_leaves_without_a_word_is_an_error_and_no_kill(
    body: Callable[[Path], None], words: str
) -> None:
    outcome = run(body)
    assert outcome.exit_signal is None
    assert outcome.failure
    assert f"exit code {words}" in outcome.failure.reason


def sleep(folder: Path) -> None:
    time.sleep(60)


def test_a_time_limit_ends_the_child() -> None:
    started = time.monotonic()
    outcome = run(sleep, 3.0)
    assert outcome.timed_out
    assert time.monotonic() - started < 20


def signal_oneself(progress: Progress) -> Outcome:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    return Outcome([TRIAL])


def signalled(folder: Path) -> None:
    answer(folder, signal_oneself)


@pytest.mark.parametrize("fresh", [False, True])
def test_what_a_terminal_or_a_cluster_sends_to_all_is_not_heard_by_a_child(fresh: bool) -> None:
    assert run(signalled, fresh=fresh).trials == [TRIAL]
    # This process still hears.
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}


def test_steps_that_add_to_a_log_are_told_and_others_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorascope.execution.events.EVENT_SECONDS", 60)
    write = EventWriter(tmp_path)
    for step in range(1, 7):
        points = [LossPoint(step, 0.5, 1e-3, None)] if step == 3 else []
        validations = [ValidationPoint(step, 0.4)] if step == 5 else []
        write(StepReport(step, 6, [0.5], 10 * step, [*points], [*validations]))
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3, 5]


def count(progress: Progress) -> Outcome:
    for step in range(3000):
        if progress(StepReport(step, 3000, [], step)):
            raise Stopped(step, 3000)
        time.sleep(0.01)
    return Outcome([TRIAL])


def counted(folder: Path) -> None:
    answer(folder, count)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_child_learns_that_it_should_stop_when_it_reports(fresh: bool) -> None:
    job = start(counted, fresh)

    def ask_at_three(event: Event) -> None:
        if isinstance(event, StepReport) and event.step >= 3:
            job.stop(now=False)

    outcome = job.wait(ask_at_three, None)
    assert outcome.saved_at
    assert 3 <= outcome.saved_at[0] < 3000


def test_a_job_that_is_ended_at_once_says_so() -> None:
    job = start(counted)
    with pytest.raises(Killed):
        job.wait(lambda event: job.stop(now=True), 60)


def write_and_wait(folder: Path) -> None:
    Path(os.environ["TOLD"]).write_text(str(os.getpid()))
    time.sleep(60)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path, fresh: bool) -> None:
    told = tmp_path / "child"
    code = (
        f"from tests.execution.test_isolation import run, write_and_wait; "
        f"run(write_and_wait, fresh={fresh})"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, env={**os.environ, "TOLD": str(told)}
    )
    deadline = time.monotonic() + 30
    while not (told.is_file() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process = psutil.Process(int(told.read_text()))
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([process], timeout=10)[1]
