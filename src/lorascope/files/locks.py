"""Who is writing a trial's folder or its scores: a lock that the system drops with its holder.

The lock is on a file of its own, which stays: a lock file that is deleted splits those who wait
for it from those who come later.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout

SUFFIX = ".lock"
LOOK_SECONDS = 1.0
"""Shortest time of trying: whoever asks whether a lock is held takes it for an instant."""


class FolderLocked(LorascopeError):
    """A folder that another process is writing."""


@contextmanager
def locked_folder(
    target: Path,
    layout: Layout,
    wait_seconds: float | None = LOOK_SECONDS,
    give_up: Callable[[], bool] | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock on `target`, a folder of the project that need not be there yet.

    The lock is this process's alone: a child does not inherit it, and outlives it where the
    holder is killed.

    Args:
        wait_seconds: the longest wait for another holder; None waits for as long as it takes.
        give_up: asked now and then whether not to wait any longer.
        on_wait: called once, with a sentence, before a wait whose end nobody knows.

    Raises:
        FolderLocked: another process, or another block of this one, holds the lock.
    """
    # Imported where it is needed: it takes a tenth of what `status` takes as a whole.
    from filelock import FileLock, Timeout

    # Named by the folder's place in the project, which a trial and its scores do not share.
    place = target.relative_to(layout.root)
    path = layout.locks / place.parent / f"{place.name}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if wait_seconds is None else wait_seconds)
    try:
        if on_wait and wait_seconds is None:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait(f"{place}: another process is writing it; waiting until it has ended")
                lock.acquire(cancel_check=give_up)
        else:
            lock.acquire(cancel_check=give_up)
    except Timeout as error:
        raise FolderLocked(
            f"{place}: another process is writing it. Wait until it has ended, or end it "
            "(`lorascope status` shows what runs), and try again."
        ) from error
    try:
        yield
    finally:
        lock.release()


def locked_folders(layout: Layout) -> set[Path]:
    """All folders of the project whose lock someone holds now."""
    return {
        layout.root / path.relative_to(layout.locks).with_suffix("")
        for path in layout.locks.rglob(f"*{SUFFIX}")
        if _is_held(path)
    }


def _is_held(path: Path) -> bool:
    if not path.is_file():
        return False
    # Shared and for reading: who may only look can ask too, and askers do not see each other.
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
