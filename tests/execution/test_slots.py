"""Packs side by side: how many, what each may use, and that they end as packs one by one do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from lorascope.config import Config
from lorascope.execution import sweep as sweeps
from lorascope.execution.engine import FollowedJob, Killed, Outcome, Slot
from lorascope.execution.local.slots import LocalEngine, await_imports
from lorascope.execution.packs import in_slots
from lorascope.execution.stop import stop_request
from lorascope.files.layout import Layout
from lorascope.files.locks import locked_folder
from lorascope.records import Status, TrialRecord

Compose = Callable[..., Config]
WAIT_SECONDS = 20


@pytest.mark.parametrize(
    ("packs", "overrides", "omp", "count"),
    [
        (4, (), "2", 2),
        (4, (), "64", 4),
        (1, (), "2", 1),
        (0, (), "2", 1),
        (4, ("runtime.threads=3",), "1", 3),
        (4, ("runtime.threads=3", "runtime.packs_at_once=2"), "1", 2),
        (4, ("runtime.packs_at_once=5",), "2", 2),
        (4, ("runtime.device=cuda",), "2", 1),
    ],
)
def test_a_slot_has_a_thread_and_a_pack(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, packs: int, overrides: tuple[str, ...],
    omp: str, count: int,
) -> None:  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    assert len(LocalEngine(compose(*overrides).runtime).slots(packs)) == count


def test_threads_and_memory_are_shared(compose: Compose) -> None:
    runtime = compose("runtime.threads=5").runtime
    assert LocalEngine(runtime).slots(1) == [Slot(5, None)]
    assert LocalEngine(compose().runtime).slots(1) == [Slot(0, None)]
    share, other = LocalEngine(runtime).slots(2)
    assert share == other
    assert share.threads == 2
    assert share.memory_bytes == pytest.approx(psutil.virtual_memory().available / 2, rel=0.3)
    runtime.memory_limit_gb = 3
    assert LocalEngine(runtime).slots(2) == [Slot(2, 1_500_000_000)] * 2


def test_without_a_word_all_processors_that_are_allowed_count(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7})
    assert len(LocalEngine(compose().runtime).slots(50)) == 3


class Sleeper:
    """A process that ends when it is killed."""

    def __init__(self) -> None:
        self.killed = threading.Event()

    def ended(self, seconds: float) -> bool:
        return self.killed.wait(seconds)

    def runs(self) -> bool:
        return True

    def kill(self) -> None:
        self.killed.set()

    def bring(self) -> None:
        raise AssertionError

    def lost(self) -> Outcome:
        raise AssertionError


def test_work_is_done_at_the_same_time_each_in_its_slot_and_returned_in_order() -> None:
    together = threading.Barrier(2)

    def work(number: int, slot: str) -> tuple[int, str]:
        together.wait(WAIT_SECONDS)
        return number * 10, slot

    with stop_request(lambda: None) as stop:
        ended = in_slots([1, 2, 3, 4], "ab", work, stop)
        assert [number for number, _ in ended] == [10, 20, 30, 40]
        assert {slot for _, slot in ended[:2]} == {slot for _, slot in ended[2:]} == {"a", "b"}
        assert in_slots([], "a", work, stop) == []


def test_a_failure_lets_others_finish_and_starts_no_more() -> None:
    failed = threading.Event()
    done: list[int] = []

    def work(number: int, slot: str) -> None:
        if number == 1:
            failed.set()
            raise OSError("no space left")
        assert failed.wait(WAIT_SECONDS)
        time.sleep(0.3)
        assert not stop.asked
        done.append(number)

    with stop_request(lambda: None) as stop, pytest.raises(OSError, match="no space left"):
        in_slots([1, 2, 3, 4, 5, 6], "ab", work, stop)
    assert 2 in done
    assert 6 not in done


def test_an_interrupt_ends_all_jobs_at_once(tmp_path: Path) -> None:
    told: list[int] = []

    def work(number: int, slot: str) -> None:
        job = FollowedJob(tmp_path / str(number), Sleeper())
        with stop.running(job):
            if number == 2:
                # Both have started.
                time.sleep(0.3)
                os.kill(os.getpid(), signal.SIGINT)
            with suppress(Killed):
                job.wait(lambda event: None, WAIT_SECONDS)
                return
        told.append(number)

    with stop_request(lambda: None) as stop, pytest.raises(KeyboardInterrupt):
        in_slots([1, 2, 3], "ab", work, stop)
    assert sorted(told) == [1, 2]


def digests(records: list[TrialRecord]) -> list[str]:
    return [record.result.adapter_sha256 for record in records if record.result]


def test_side_by_side_equals_one_by_one_to_the_bit(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    own = [("lora.rank=1", "seed=920"), ("lora.rank=16", "seed=920"), ("lora.rank=4", "seed=921")]
    sweep = [*own, ("lora.rank=2", "seed=921"), ("quant=int8", "seed=920")]
    alone = [compose(*given, "runtime.threads=1") for given in sweep]
    expected = sweeps.run_sweep(alone, project)
    for record in expected:
        (project.trials(record.key.quant) / record.trial).rename(tmp_path / record.trial)
    found = sweeps.run_sweep([compose(*g, "runtime.threads=2") for g in sweep], project)
    assert digests(found) == digests(expected)
    assert {record.provenance.threads for record in found} == {1}
    assert [r.result.trials_at_once for r in found if r.result] == [2, 2, 2, 2, 1]
    # Packs of the whole sweep, whatever is missing: two of one pack, and the INT8 trial.
    for record in (found[0], found[3], found[4]):
        (project.trials(record.key.quant) / record.trial).rename(tmp_path / f"2 {record.trial}")
    again = sweeps.run_sweep([compose(*g, "runtime.threads=2") for g in sweep], project)
    assert digests(again) == digests(expected)


def test_whoever_waits_for_another_sweep_stops_at_the_first_press(
    project: Layout, compose: Compose
) -> None:
    sweep = [compose("seed=923", "runtime.threads=2", f"lora.rank={rank}") for rank in (1, 2, 3, 4)]
    folders = [sweeps._trial(config, project).folder for config in sweep]
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    # Until the libraries are loaded.
    await_imports("lorascope.execution.child")
    with ExitStack() as locks:
        for folder in folders:
            locks.enter_context(locked_folder(folder, project))
        threading.Timer(3, press).start()
        with pytest.raises(KeyboardInterrupt):
            sweeps.run_sweep(sweep, project)
    assert time.monotonic() - pressed[0] < 5
    assert not any(folder.exists() for folder in folders)


def test_what_has_no_room_beside_others_is_trained_by_itself(
    project: Layout, compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("quant=nf4", "runtime.threads=2", "runtime.memory_limit_gb=0.006")
    sweep = [compose(*given, "seed=922", f"lora.rank={rank}") for rank in (1, 2, 64, 128)]
    records = sweeps.run_sweep(sweep, project)
    assert {record.status for record in records} == {Status.completed}
    assert capsys.readouterr().err.count("no room beside other packs") == 2
    # Each of both packs in half of the memory with one thread; then all that there is.
    assert {record.provenance.threads for record in records} == {2}
