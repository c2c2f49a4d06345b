"""Files and folders that are replaced as a whole, so that nothing is ever seen half-written."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

COMPLETE = ".complete"
FORMER = ".former"
SCRATCH_LETTERS = 8
"""That `_scratch` appends to a name."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` as a whole: readers see the old bytes or the new, and links stay untouched."""
    write_all_atomically({path: content})


def write_all_atomically(contents: Mapping[Path, bytes]) -> None:
    """Replace all files or, where one cannot be written, none: each is written in full beside its
    place before the first is moved there, which takes no room."""
    scratches: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            scratches[path] = _scratch(path)
            _write_new(scratches[path], content)
        for path, scratch in scratches.items():
            os.replace(scratch, path)
    except BaseException:
        for scratch in scratches.values():
            scratch.unlink(missing_ok=True)
        raise


def _write_new(path: Path, content: bytes) -> None:
    """The file gets the permissions that the user's umask leaves."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _scratch(target: Path) -> Path:
    """A name of its own beside `target`. Modules that make temporary files make them for the user
    alone, and the umask cannot be asked for without setting it, for all threads."""
    return target.with_name(f".{target.name}.{secrets.token_hex(SCRATCH_LETTERS // 2)}")


def apply_umask(folder: Path) -> None:
    """Give the files in `folder` the permissions that its own, which the umask decided, imply: some
    libraries write through temporary files, which are for the user alone."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes `target` when the block ends well, and vanishes when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(target)
    scratch.mkdir()
    former = scratch.with_name(f"{scratch.name}.former")
    try:
        yield scratch
        apply_umask(scratch)
        if target.exists():
            os.replace(target, former)
        os.replace(scratch, target)
    except BaseException:
        if former.exists():
            os.replace(former, target)
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def replaced_folders(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Scratch folders that become `targets`, which lie side by side, all of them or none: what a
    kill interrupts after the block ended well, `finish_replacements` completes."""
    parent = targets[0].parent
    parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(targets[0])
    scratch.mkdir()
    try:
        folders = [scratch / target.name for target in targets]
        for folder in folders:
            folder.mkdir()
        yield folders
        apply_umask(scratch)
        write_atomically(scratch / COMPLETE, b"")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _move_all(scratch)


def finish_replacements(parent: Path) -> None:
    """Put in place what complete scratch folders in `parent` hold after a kill; several processes
    and threads may call it at once."""
    for marker in sorted(parent.glob(f".*/{COMPLETE}")):
        _move_all(marker.parent)


def _move_all(scratch: Path) -> None:
    # One process, or thread, at a time: the system drops the lock with its holder.
    lock = os.open(scratch.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (scratch / COMPLETE).exists():
            # Whoever came first has moved all of it.
            return
        for folder in sorted(path for path in scratch.iterdir() if path.is_dir()):
            target, former = scratch.parent / folder.name, folder.with_name(folder.name + FORMER)
            if folder.suffix == FORMER:
                continue
            if target.exists():
                shutil.rmtree(former, ignore_errors=True)
                os.replace(target, former)
            os.replace(folder, target)
        shutil.rmtree(scratch, ignore_errors=True)
    finally:
        os.close(lock)


def scratch_target(folder: Path) -> Path | None:
    """The folder that `replaced_folder` or `remove_folder` made the scratch folder `folder` for;
    None for a folder with another kind of name."""
    stem, _, ending = folder.name.removesuffix(".former").removeprefix(".").rpartition(".")
    if not folder.name.startswith(".") or not stem or len(ending) != SCRATCH_LETTERS:
        return None
    return folder.with_name(stem)


def remove_folder(folder: Path) -> None:
    """Delete `folder`: whoever looks sees all of it or nothing, also when this is interrupted."""
    scratch = _scratch(folder)
    os.replace(folder, scratch)
    shutil.rmtree(scratch)
