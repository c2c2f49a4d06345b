"""Reading and writing records and folders so that nothing is ever seen half-written."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lorascope.errors import RecordError
from lorascope.layout import RECORD

T = TypeVar("T")

COMPLETE = ".complete"
FORMER = ".former"
SCRATCH_LETTERS = 8
"""That tempfile appends to a prefix."""


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(record_type: Any) -> TypeAdapter[Any]:
    """Building an adapter takes longer than using it."""
    if record_type not in _adapters:
        _adapters[record_type] = TypeAdapter(record_type)
    return _adapters[record_type]


def write_record(folder: Path, record: Any) -> None:
    """Write `record` to folder/record.json, atomically, as readable JSON with a stable order."""
    adapter = _adapter(type(record))
    text = adapter.dump_json(record, indent=2) + b"\n"
    # JSON has no NaN and no infinity: such a value would be lost, and the record unreadable.
    adapter.validate_json(text)
    write_atomically(folder / RECORD, text)


def read_record(folder: Path, record_type: type[T]) -> T:
    """Read a record back.

    Raises:
        RecordError: it is missing, damaged, or of another kind.
    """
    path = folder / RECORD
    try:
        return _adapter(record_type).validate_json(path.read_bytes())  # type: ignore[no-any-return]
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no record here. Run the stage that makes it.") from error
    except ValidationError as error:
        raise RecordError(
            f"{path}: not a readable {record_type.__name__}: {error.errors()[0]['msg']}. "
            f"Delete {folder} and run its stage again."
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` as a whole: readers see the old bytes or the new, and links stay untouched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes `target` when the block ends well, and vanishes when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    scratch.chmod(0o755)
    former = scratch.with_name(f"{scratch.name}.former")
    try:
        yield scratch
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
    scratch = Path(tempfile.mkdtemp(dir=parent, prefix=f".{targets[0].name}."))
    try:
        folders = [scratch / target.name for target in targets]
        for folder in folders:
            folder.mkdir()
        yield folders
        write_atomically(scratch / COMPLETE, b"")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _move_all(scratch)


def finish_replacements(parent: Path) -> None:
    """Put in place what complete scratch folders in `parent` hold after a kill.

    Several processes and threads may call it at once.
    """
    for marker in sorted(parent.glob(f".*/{COMPLETE}")):
        _move_all(marker.parent)


def _move_all(scratch: Path) -> None:
    with _only_mover(scratch.parent):
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


@contextmanager
def _only_mover(parent: Path) -> Iterator[None]:
    """One process, or thread, at a time: the system drops the lock with its holder."""
    handle = os.open(parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def scratch_target(folder: Path) -> Path | None:
    """The folder that `replaced_folder` or `remove_folder` made the scratch folder `folder` for;
    None for a folder with another kind of name."""
    stem, _, ending = folder.name.removesuffix(".former").removeprefix(".").rpartition(".")
    if not folder.name.startswith(".") or not stem or len(ending) != SCRATCH_LETTERS:
        return None
    return folder.with_name(stem)


def remove_folder(folder: Path) -> None:
    """Delete `folder`: whoever looks sees all of it or nothing, also when this is interrupted."""
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        os.replace(folder, scratch)
    except OSError:
        scratch.rmdir()
        raise
    shutil.rmtree(scratch)


def require_content(
    path: Path, sha256: str, remedy: str, patterns: tuple[str, ...] = ("*",)
) -> None:
    """Raise unless the file or folder `path` holds what a record names: loading what is cut off or
    exchanged would fail without a reason, or give numbers of something else.

    Args:
        patterns: which files of a folder count.

    Raises:
        RecordError: it is missing, cut off or another one.
    """
    found: str | None
    if path.is_dir():
        found = sha256_of_files(path, patterns)
    else:
        found = sha256_of_file(path) if path.is_file() else None
    if found != sha256:
        raise RecordError(
            f"{path}: {'missing' if found is None else 'damaged or exchanged'}, not what its "
            f"record was made from. {remedy}"
        )


def sha256_of_files(folder: Path, patterns: tuple[str, ...] = ("*",)) -> str:
    """Digest over names and bytes of the files in `folder` that match, but for records and hidden
    files, which file managers and network drives leave anywhere."""
    digest = hashlib.sha256()
    names = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(names):
        if path.name == RECORD or path.name.startswith("."):
            continue
        digest.update(path.name.encode() + b"\0")
        digest.update(sha256_of_file(path).encode())
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Digest of one file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
