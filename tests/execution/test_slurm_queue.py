"""What a head makes of its jobs' states: programs in place of Slurm's say them."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lorascope.errors import ConfigError
from lorascope.execution.engine import (
    STOP,
    Event,
    FollowedJob,
    Job,
    Outcome,
    Slot,
    read_outcome,
    write_job,
)
from lorascope.execution.local.slots import PARENT, Child
from lorascope.execution.slurm.node import RUNNING, NodeJob
from lorascope.execution.slurm.process import ID, SlurmProcess
from lorascope.execution.slurm.queue import Queue
from lorascope.execution.slurm.submission import require_slurm
from lorascope.files.layout import Layout
from tests.conftest import compose_one
from tests.execution.test_isolation import PRELOAD

Slurm = Callable[[str], None]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """Sets what `squeue` says; `scancel` writes down its words."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, line in {"squeue": "cat", "scancel": "echo $* >>"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{line} {programs}/{name}.txt\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr("lorascope.execution.slurm.queue.QUEUE_SECONDS", 0.0)

    def say(states: str) -> None:
        (programs / "squeue.txt").write_text(states)

    return say


def follow(folder: Path, project: Layout, jobs: Queue) -> FollowedJob:
    """Job 7_1, which trains 60 steps."""
    folder.mkdir()
    config = compose_one(project, "train.steps=60")
    write_job(folder, Job(folder, "small", folder, folder, [config], [folder], Slot(1, None)))
    (folder / ID).write_text("7_1")
    return FollowedJob(folder, SlurmProcess(folder, [folder / "adapter"], 240, jobs))


def ignore(event: Event) -> None:
    pass


@pytest.mark.parametrize(
    ("state", "outcome", "words"),
    [
        ("OUT_OF_MEMORY", Outcome(exit_signal=signal.SIGKILL), ""),
        ("TIMEOUT", Outcome(timed_out=True, limit="engine.minutes=240"), ""),
        ("CANCELLED", None, "ended as CANCELLED .* the same command trains its pack"),
        ("FAILED", None, "ended as FAILED .*may not see .*Python environment"),
    ],
)
def test_a_job_that_left_no_outcome_has_that_of_its_state(
    tmp_path: Path,
    bare_project: Layout,
    slurm: Slurm,
    state: str,
    outcome: Outcome | None,
    words: str,
) -> None:
    slurm(f"6_1|RUNNING|None\n7_1|{state}|None\n")
    found = follow(tmp_path / "job", bare_project, Queue()).wait(ignore, None)
    if outcome is not None:
        assert found == outcome
    else:
        assert found.failure is not None
        assert re.search(words, found.failure.reason.replace("\n", " "))
        # Whoever cancels a job by hand wants no other tries of its trials.
        assert found.failure.is_input is (state == "CANCELLED")


def test_a_job_that_waits_leaves_the_queue_when_somebody_asks_to_stop(
    tmp_path: Path, bare_project: Layout, slurm: Slurm
) -> None:
    slurm("7_1|PENDING|Resources\n")
    job = follow(tmp_path / "job", bare_project, Queue())
    (tmp_path / "job" / STOP).touch()
    assert job.wait(ignore, None).saved_at == (0, 60)
    assert "7_1" in (tmp_path / "programs/scancel.txt").read_text()


def test_time_in_the_queue_is_no_packs(tmp_path: Path, bare_project: Layout, slurm: Slurm) -> None:
    slurm("7_1|PENDING|Resources\n")
    (tmp_path / ID).write_text("7_1")
    process = SlurmProcess(tmp_path, [], 240, Queue())
    assert not process.runs()
    slurm("7_1|RUNNING|None\n")
    assert not process.runs()
    (tmp_path / RUNNING).touch()
    assert process.runs()


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_lock_that_a_running_job_holds_and_nobody_sees_here_is_refused(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    monkeypatch.setattr("lorascope.execution.shared_folder.UNLOCKED_SECONDS", 0.1)
    slurm("7_1|RUNNING|None\n")
    for name, text in {ID: "7_1", RUNNING: "", PARENT: ""}.items():
        (tmp_path / name).write_text(text)
    held = os.open(tmp_path / PARENT, os.O_WRONLY)
    if is_seen:
        fcntl.flock(held, fcntl.LOCK_EX)
    process = SlurmProcess(tmp_path, [], 240, Queue())
    # A node that is lost leaves such a file, too, and says no more that it runs.
    assert not process.ended(0.2)
    os.utime(tmp_path / RUNNING, (time.time() + 60, time.time() + 60))
    if is_seen:
        assert not process.ended(0)
    else:
        with pytest.raises(ConfigError, match=r"locked by job 7_1.*NFS 4"):
            process.ended(0)
    os.close(held)


def rest(folder: Path) -> None:
    time.sleep(60)


@pytest.mark.parametrize("in_vain", [0, 2])
def test_a_job_comes_back_unless_it_got_no_further_three_times(
    tmp_path: Path, in_vain: int
) -> None:
    pytest.importorskip("submitit")
    job = NodeJob(tmp_path, 0, rest, save_seconds=0.0, step=5, in_vain=in_vain)
    job._started, job._child = time.monotonic(), Child(rest, tmp_path, PRELOAD, fresh=False)
    (tmp_path / "paused").write_text("5")
    if in_vain == 0:
        assert job.checkpoint().function._in_vain == 1
        return
    with pytest.raises(SystemExit):
        job.checkpoint()
    assert read_outcome(tmp_path).timed_out


def test_a_controller_that_does_not_answer_changes_nothing(tmp_path: Path, slurm: Slurm) -> None:
    begun, jobs = time.monotonic(), Queue()
    slurm("7_1|RUNNING|None\n")
    assert jobs.state("7_1", begun) == "RUNNING"
    (tmp_path / "programs/squeue.txt").unlink()
    assert jobs.state("7_1", begun) == "RUNNING"
    # It was not there when Slurm answered last.
    assert jobs.state("8", time.monotonic()) == "PENDING"


def test_why_a_job_waits_that_may_wait_for_long_is_said_once(
    slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm("7_0|PENDING|Resources\n7_1|PENDING|PartitionTimeLimit\n8|PENDING|PartitionTimeLimit\n")
    jobs = Queue()
    assert [jobs.state(job, time.monotonic()) for job in ("7_1", "8")] == ["PENDING"] * 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("job 7_1 of Slurm waits: PartitionTimeLimit")


def test_without_slurm_the_error_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="there is no sbatch, srun, squeue, scancel here"):
        require_slurm()
