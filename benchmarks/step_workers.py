"""The side of `step_worker` that asks."""

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
from typing import IO

from benchmarks.measure import (
    KEPT_CHARACTERS,
    TIMEOUT_SECONDS,
    BenchmarkError,
    Command,
    environment_of,
)
from benchmarks.origin import REPOSITORY
from benchmarks.workload import environment


@dataclass(frozen=True)
class Pack:
    """What a worker is asked for."""

    root: Path
    """A project with base and data."""
    overrides: tuple[str, ...]
    """That declare its trials."""
    steps: int
    """To be timed."""


@dataclass(frozen=True)
class Span:
    """When timed steps started and ended, in seconds of a clock that all processes share."""

    started: float
    ended: float


class StepWorker:
    """One process with a fixed number of threads. It waits, and uses nothing, between packs."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors

    def ask(self, pack: Pack) -> None:
        """Let it train; several workers can do so at the same time."""
        assert self._process.stdin is not None
        asked = {"root": str(pack.root), "overrides": pack.overrides, "steps": pack.steps}
        self._process.stdin.write(json.dumps(asked) + "\n")
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
            raise BenchmarkError(f"a pack failed: {self._errors.read()[-KEPT_CHARACTERS:].strip()}")
        return Span(**json.loads(line))


@contextmanager
def step_workers(threads: Sequence[int]) -> Iterator[list[StepWorker]]:
    """One worker for each number of threads, ended at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(_step_worker(count)) for count in threads]


@contextmanager
def _step_worker(threads: int) -> Iterator[StepWorker]:
    words = (sys.executable, "-m", "benchmarks.step_worker", "--threads", str(threads))
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


def steps_alone(worker: StepWorker, packs: Sequence[Pack]) -> float:
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
