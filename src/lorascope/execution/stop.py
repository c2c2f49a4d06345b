"""Ctrl-C in long work: the first asks to save and stop, the second stops at once.

SIGTERM counts as Ctrl-C: clusters send it before a time limit. A signal that is ignored, as SIGINT
is in a job that a script put into the background, stays ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from lorascope.execution.engine import FollowedJob

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2


class StopRequest:
    """Whether somebody asked to stop, and the jobs that are told so."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.worth_saving: set[str] = set()
        """Packs whose work would be lost; without any the first signal stops at once."""
        self.at_once = False
        """Whether everything is to end without being saved."""
        self._on_first = on_first
        self._asked: int | None = None
        self._running: set[FollowedJob] = set()

    @property
    def asked(self) -> bool:
        """Whether nothing new should start."""
        return self.at_once or self._asked is not None

    def end_if_asked(self) -> None:
        """Raise what ends the process, if somebody asked for it."""
        if self._asked is not None:
            _end(self._asked)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of `SIGNALS`."""
        if self._asked is not None or not self.worth_saving:
            _end(number)
        self._asked = number
        self._stop_all(now=False)
        self._on_first()
        # Whoever was interrupted may be writing to the same stream: no `print` here.
        words = "lorascope: stopping after saving; press again to stop at once"
        os.write(STDERR, f"\n{words}\n".encode())

    def stop_at_once(self) -> None:
        """End all jobs, those included that are only being started."""
        self.at_once = True
        self._stop_all(now=True)

    @contextmanager
    def running(self, job: FollowedJob) -> Iterator[None]:
        """Within it `job` hears what is asked; threads may run jobs of their own."""
        self._running.add(job)
        try:
            # Somebody may have asked while it was started.
            if self.asked:
                job.stop(now=self.at_once)
            yield
        finally:
            self._running.discard(job)

    def _stop_all(self, now: bool) -> None:
        # A copy is made in one step, whatever other threads do to the set.
        for job in list(self._running):
            job.stop(now)


def _end(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


@contextmanager
def stop_request(on_first: Callable[[], None]) -> Iterator[StopRequest]:
    """Listen inside the block, and call `on_first` in the handler, before a line is written to
    standard error; the former handlers are back after the block."""
    request = StopRequest(on_first)
    former = {}
    # Only the main thread may set handlers, and hears signals.
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in former.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, request.handle)
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
