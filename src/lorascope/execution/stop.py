"""Ctrl-C in long work: the first asks to save and stop, the second stops at once.

SIGTERM counts as Ctrl-C: clusters send it before a time limit. A signal that is ignored, as SIGINT
is in a job that a script put into the background, stays ignored.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2


class StopRequest:
    """Whether somebody asked to stop, here and in children."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.connection: Connection
        """Something is to be read from it, in whatever process, once somebody has asked."""
        self.connection, self._asking = multiprocessing.Pipe(duplex=False)
        self.worth_saving: set[str] = set()
        """Work at hand that would be lost; without any the first signal stops at once."""
        self._on_first = on_first
        self._asked: int | None = None

    def end_if_asked(self) -> None:
        """Raise what ends the process, if somebody asked for it."""
        if self._asked is not None:
            _end(self._asked)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of `SIGNALS`."""
        if self._asked is not None or not self.worth_saving:
            _end(number)
        self._asked = number
        self._asking.close()
        self._on_first()
        # Whoever was interrupted may be writing to the same stream: no `print` here.
        words = "lorascope: stopping after saving; press again to stop at once"
        os.write(STDERR, f"\n{words}\n".encode())


def _end(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


@contextmanager
def stop_request(on_first: Callable[[], None]) -> Iterator[StopRequest]:
    """Listen inside the block; the former handlers are back after it.

    Args:
        on_first: called in the signal's handler, before a line is written to standard error.
    """
    request = StopRequest(on_first)
    former = {}
    # Only the main thread may set handlers, and hears signals.
    if threading.current_thread() is threading.main_thread():
        former = {one: signal.getsignal(one) for one in SIGNALS}
    for one, handler in former.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, request.hear)
    try:
        yield request
    finally:
        for one, handler in former.items():
            signal.signal(one, handler)
        request.connection.close()
        request._asking.close()
