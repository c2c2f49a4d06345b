"""Runs a function in its own child process, so that its memory is its own and its death is a fact.

On a CPU children are forked from a server that has imported the heavy libraries once: a child
starts in a fraction of a second instead of ten. CUDA cannot be used in a forked child of a process
that has touched it, so there children start afresh.

Ctrl-C in a terminal reaches a whole group of processes. Children and fork server never hear it, nor
SIGTERM: what happens then is the parent's decision.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

KEPT_LINES = 20
TIMEOUT = ("timeout", None)
UNHEARD = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class Outcome:
    """How a child ended: with a value, with an error, or by a signal or a time limit."""

    value: Any = None
    error: BaseException | None = None
    exit_signal: int | None = None
    timed_out: bool = False
    last_lines: list[str] = field(default_factory=list)


class Ended(Exception):
    """A child that was killed because somebody asked for it."""


Report = Callable[[Any], bool]
"""Tells the parent something; whether the parent wants the child to stop."""


def run_isolated(
    function: Callable[[Any, Report], Any],
    argument: Any,
    on_report: Callable[[Any], None],
    preload: str,
    fresh: bool = False,
    timeout_seconds: float | None = None,
    stop: Connection | None = None,
    end_now: Connection | None = None,
) -> Outcome:
    """Call `function(argument, report)` in a child and wait for it.

    Args:
        function: importable; what it passes to `report` reaches `on_report` here.
        preload: module with the heavy imports, loaded once in the fork server.
        fresh: start a new interpreter instead of forking (needed for CUDA).
        timeout_seconds: the child is ended after so long without a result.
        stop: where something is to be read as soon as the child should stop.
        end_now: where something is to be read as soon as the child should be killed.

    Raises:
        Ended: `end_now` asked for it.
    """
    context = _context(preload, fresh)
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="lorascope-") as scratch:
        log = Path(scratch) / "child.log"
        child = context.Process(target=_child, args=(function, argument, sender, stop, str(log)))
        _start(child, fresh)
        sender.close()
        try:
            final = _listen(receiver, on_report, timeout_seconds, end_now)
            if final is not None and final != TIMEOUT:
                # It has said all, and gives back what it holds.
                child.join(timeout=5)
        except BaseException:
            child.kill()
            raise
        finally:
            if child.is_alive() and not receiver.closed:
                receiver.close()
            child.join(timeout=5)
            if child.is_alive():
                child.kill()
                child.join()
        return _outcome(final, child.exitcode, _last_lines(log))


def _context(preload: str, fresh: bool) -> Any:
    method = "spawn" if fresh else "forkserver"
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # joblib's workers have a method of their own, which a child of theirs would not know.
        multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_forkserver_preload([preload])
    return multiprocessing.get_context(method)


def start_imports(preload: str) -> None:
    """Let the fork server import `preload` while this process does something else."""
    _context(preload, fresh=False)
    _start(None, fresh=False)


def await_imports(preload: str) -> None:
    """Return once the fork server can start children at once: starting them waits for it, deaf to
    all but signals."""
    child = _context(preload, fresh=False).Process(target=_nothing)
    _start(child, fresh=False)
    child.join()


def _nothing() -> None:
    pass


def end_fork_server() -> None:
    """Kill it, if there is one: left to itself it would first import to the end, and then take its
    libraries apart for seconds, beside whatever comes next. No child may be left."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is None:
        return
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(server._forkserver_pid, signal.SIGKILL)
        # Reaps it, so that another one may be started.
        server._stop()


def _start(child: BaseProcess | None, fresh: bool) -> None:
    """Start `child`, or the fork server alone, deaf to `UNHEARD`: blocked signals stay blocked in
    what a process starts."""
    # It unblocks them itself where it has to start its tracker.
    resource_tracker.ensure_running()
    former = signal.pthread_sigmask(signal.SIG_BLOCK, UNHEARD)
    try:
        if not fresh:
            forkserver.ensure_running()
        elif child is not None:
            child.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    if not fresh and child is not None:
        # The fork server may be importing for seconds, in which the parent hears.
        child.start()


def _listen(
    receiver: Connection,
    on_report: Callable[[Any], None],
    timeout_seconds: float | None,
    end_now: Connection | None,
) -> tuple[str, Any] | None:
    """The child's last message; None when it died without one; `TIMEOUT` on the limit."""
    import time

    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = wait([receiver] if end_now is None else [receiver, end_now], left)
        if end_now in ready:
            raise Ended
        if not ready:
            return TIMEOUT
        try:
            kind, content = receiver.recv()
        except EOFError:
            return None
        if kind != "report":
            return (kind, content)
        on_report(content)


def _outcome(final: tuple[str, Any] | None, exit_code: int | None, lines: list[str]) -> Outcome:
    if final is None and exit_code is not None and exit_code < 0:
        return Outcome(exit_signal=-exit_code, last_lines=lines)
    if final is None:
        words = "\n".join(lines)
        crash = RuntimeError(f"the child process ended with exit code {exit_code}:\n{words}")
        return Outcome(error=crash, last_lines=lines)
    kind, content = final
    if kind == "value":
        return Outcome(value=content, last_lines=lines)
    if kind == "error":
        return Outcome(error=content, last_lines=lines)
    return Outcome(timed_out=True, last_lines=lines)


def _child(
    function: Callable[[Any, Report], Any],
    argument: Any,
    sender: Connection,
    stop: Connection | None,
    log: str,
) -> None:
    """The child's body: its output goes to a file, whose last lines matter after a failure."""
    _end_with_parent(sender)
    target = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(target, 1)
    os.dup2(target, 2)

    def report(content: Any) -> bool:
        sender.send(("report", content))
        return stop is not None and stop.poll()

    try:
        value = function(argument, report)
        sender.send(("value", value))
    except Exception as error:
        error.add_note("In the child process:\n" + traceback.format_exc())
        traceback.print_exc()
        try:
            sender.send(("error", error))
        except Exception as unsendable:
            words = f"{type(error).__name__}: {error} (cannot travel: {unsendable})"
            sender.send(("error", RuntimeError(words)))


def _end_with_parent(sender: Connection) -> None:
    """Kill this process once nobody can read what it sends: it would write to the same places as
    the next sweep's child. The fork server is no sign: it lives as long as its children."""
    gone = select.poll()
    # Errors alone, which are always told: the other end is closed.
    gone.register(sender.fileno(), 0)

    def wait() -> None:
        gone.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _last_lines(log: Path) -> list[str]:
    if not log.is_file():
        return []
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-KEPT_LINES:]
