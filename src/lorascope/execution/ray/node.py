"""What Ray runs on some node: a task that watches over the process that trains, or scores.

Ray's own processes serve many tasks. So the next pack finds the libraries loaded, by the server
that its child is forked from; and a child has its memory for itself here too.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from lorascope.execution.child import answer, train_followed
from lorascope.execution.engine import Outcome, write_outcome
from lorascope.execution.events import Event
from lorascope.execution.local.slots import PRELOADED, Child
from lorascope.execution.shared_folder import (
    BEAT_SECONDS,
    RUNNING,
    beat,
    is_wanted,
    last_step,
    told_once,
)
from lorascope.training.progress import Progress

AT_WORK = "at_work.lock"
"""File of a job's folder that is locked by the process that does its work."""


def do_job(
    folder: Path, body: Callable[[Path], None], fresh: bool, variables: Mapping[str, str]
) -> None:
    """The task: have `body` do the work of the job in `folder`, with an outcome in any case.

    Args:
        fresh: whether the child needs a new interpreter, as CUDA does.
        variables: of the environment of whoever submitted it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not seen on this node")
    if not is_wanted(folder):
        return
    os.environ.update(variables)
    # Each child would run it again: it is Ray's own program.
    vars(sys.modules["__main__"]).pop("__file__", None)
    child = Child(partial(_alone, body), folder, PRELOADED, fresh)
    (folder / RUNNING).touch()
    while not child.ended(BEAT_SECONDS):
        beat(folder)
    if is_wanted(folder):
        write_outcome(folder, child.lost())


def _alone(body: Callable[[Path], None], folder: Path) -> None:
    """The body of the child. The one of a former task, which was lost, may be about to end."""
    lock = os.open(folder / AT_WORK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if is_wanted(folder):
        body(folder)


def train(folder: Path) -> None:
    """The body of a process that trains a pack, or goes on with what a lost task saved of it."""
    answer(folder, partial(_train, folder))


def _train(folder: Path, progress: Progress) -> Outcome:
    told = last_step(folder)

    def report(event: Event) -> bool:
        return progress(told_once(event, told))

    return train_followed(folder, report)
