"""The side of `step_worker` and `bare_step_worker` that asks."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.measure import (
    KEPT_CHARACTERS,
    TIMEOUT_SECONDS,
    BenchmarkError,
    Command,
    environment_of,
)
from benchmarks.origin import REPOSITORY
from benchmarks.workload import environment

BARE_STEP_WORKER = REPOSITORY / "benchmarks" / "bare_step_worker.py"
WARM_UP_STEPS = 3
"""Before the clock starts: first batches, first touches of memory."""


@dataclass(frozen=True)
class Pack:
    """What a worker is asked for."""

    root: Path
    """A project with base and data."""
    overrides: tuple[str, ...]
    """That declare its trials."""
    steps: int
    """To be timed."""

    @property
    def request(self) -> dict[str, Any]:
        """What `step_worker` reads."""
        return {"root": str(self.root), "overrides": self.overrides, "steps": self.steps}


@dataclass(frozen=True)
class BareTrial:
    """What a bare worker is asked for."""

    words: tuple[str, ...]
    """Of the bare script's command line."""
    steps: int
    """To be timed."""

    @property
    def request(self) -> dict[str, Any]:
        """What `bare_step_worker` reads."""
        steps = ("--steps", str(WARM_UP_STEPS + self.steps))
        return {"words": (*self.words, *steps), "warm_up_steps": WARM_UP_STEPS}


@dataclass(frozen=True)
class Span:
    """When timed steps started and ended, in seconds of a clock that all processes share."""

    started: float
    ended: float


class StepWorker:
    """One process with a fixed number of threads. It waits, and uses nothing, between packs."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors

    def ask(self, work: Pack | BareTrial) -> None:
        """Let it train; several workers can do so at the same time."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(work.request) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Span:
        """When the pack's timed steps started and ended.

        Raises:
            BenchmarkError: the process died, or did not answer in time.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], TIMEOUT_SECONDS)[0]:
            raise BenchmarkError(f"no steps within {TIMEOUT_SECONDS} s")
        line = self._process.stdout.readline()
        if not line:
            # Its last words come after its last answer, and at a place in the file that both share.
            self._process.wait(TIMEOUT_SECONDS)
            self._errors.seek(0)
            words = self._errors.read()[-KEPT_CHARACTERS:].strip()
            raise BenchmarkError(f"a training failed: {words}")
        return Span(**json.loads(line))


@contextmanager
def step_workers(threads: Sequence[int]) -> Iterator[list[StepWorker]]:
    """One worker for each number of threads, ended at the end."""
    with ExitStack() as stack:
        module = ("-m", "benchmarks.step_worker")
        yield [stack.enter_context(_worker(module, count)) for count in threads]


@contextmanager
def bare_step_worker(threads: int) -> Iterator[StepWorker]:
    """One that trains as the bare script does, ended at the end."""
    # A script, as the bare one is: it finds that beside itself.
    with _worker((str(BARE_STEP_WORKER),), threads) as worker:
        yield worker


@contextmanager
def _worker(program: tuple[str, ...], threads: int) -> Iterator[StepWorker]:
    words = (sys.executable, *program, "--threads", str(threads))
    command = Command(words, REPOSITORY, environment(threads))
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            words, cwd=REPOSITORY, env=environment_of(command), text=True, stderr=errors,
            start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield StepWorker(process, errors)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def steps_alone(worker: StepWorker, packs: Sequence[Pack | BareTrial]) -> float:
    """Seconds that one step of every pack takes, one after the other."""
    seconds = 0.0
    for pack in packs:
        worker.ask(pack)
        span = worker.answer()
        seconds += (span.ended - span.started) / pack.steps
    return seconds


def steps_side_by_side(workers: Sequence[StepWorker], packs: Sequence[Pack]) -> float:
    """Seconds that one step of every pack takes where all are trained at the same time: from the
    first's start to the last's end, so that a late start counts against it."""
    for worker, pack in zip(workers, packs, strict=True):
        worker.ask(pack)
    spans = [worker.answer() for worker in workers]
    return (max(s.ended for s in spans) - min(s.started for s in spans)) / packs[0].steps
