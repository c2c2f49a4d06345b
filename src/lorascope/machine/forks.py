"""Work that forked processes of this computer share: reading and comparing a thousand trials keeps
one core busy, and the others idle.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")

MOST_PROCESSES = 4
LEAST_VALUES = 64
"""Of one process: below it a fork costs more than it saves."""
THREADED = ("torch", "mlflow")
"""Packages whose threads a fork may find in the middle of something."""


def map_forked(
    work: Callable[[Value], Result],
    values: Sequence[Value],
    show: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """`work` of each value, in order, by as many processes as pay; its results must pickle.

    What `work` keeps beside its result is kept in the process that did it. What it raises in a fork
    is raised here, where it is done again. `show` is called with (values done, values in all),
    where all processes are taken to be as far as this one.
    """
    count = min(_cores(), MOST_PROCESSES, len(values) // LEAST_VALUES)
    if count < 2:
        return _done(work, values, len(values), show)
    ends = [len(values) * number // count for number in range(count + 1)]
    parts = [values[start:end] for start, end in pairwise(ends)]
    others = [Forked(partial(_done, work, part)) for part in parts[1:]]
    try:
        found = _done(work, parts[0], len(values), show)
        for other in others:
            found += other.result()
        return found
    finally:
        for other in others:
            other.end()


def _done(
    work: Callable[[Value], Result],
    values: Sequence[Value],
    total: int = 0,
    show: Callable[[int, int], None] | None = None,
) -> list[Result]:
    found = []
    for number, value in enumerate(values, start=1):
        if show:
            show(total * number // len(values), total)
        found.append(work(value))
    return found


class Forked(Generic[Result]):
    """Work that a fork of this process does while this one goes on; without a second core, or
    where a fork would be unsafe, it is done where its result is asked for."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._process: multiprocessing.context.ForkProcess | None = None
        if _cores() < 2:
            return
        context = multiprocessing.get_context("fork")
        self._answers, answer = context.Pipe(duplex=False)
        ends = self._answers, answer
        self._process = context.Process(target=_answer, args=(work, *ends), daemon=True)
        with warnings.catch_warnings():
            # Threads of BLAS, which are prepared for it.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        answer.close()

    def result(self) -> Result:
        """What the work returned, or raised. Call it once."""
        if self._process is None:
            return self._work()
        try:
            found: Result = self._answers.recv()
        except Exception:
            # It failed there, or the system took that process, for its memory maybe, or its answer
            # cannot be read: what is wrong with the work itself, the next line raises.
            return self._work()
        finally:
            self.end()
        return found

    def end(self) -> None:
        """Stop work whose result nobody needs."""
        if self._process is not None:
            self._answers.close()
            self._process.terminate()
            self._process.join()


def _answer(work: Callable[[], object], answers: Connection, answer: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Else nobody would tell it that its parent is gone.
    answers.close()
    try:
        answer.send(work())
    finally:
        # Nothing of the parent's is for this process to end or to print.
        os._exit(0)


def _cores() -> int:
    """Processes that may work at once; 1 where a fork is not safe."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return 1
    if any(name in sys.modules for name in THREADED) or multiprocessing.parent_process():
        return 1
    return len(os.sched_getaffinity(0))
