"""Records: written with their digest, and held against it when they are read; digests of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from lorascope.errors import RecordError
from lorascope.files.confidential import with_public_addresses
from lorascope.files.kept import kept, kept_sha256
from lorascope.files.layout import RECORD
from lorascope.files.replacing import write_atomically

T = TypeVar("T")

FILES = "files_bytes"
"""Key of a record on disk: the files that lay beside it when it was written, and their sizes."""
DIGEST = "record_sha256"
"""Key of a record on disk: digest of all its other values, however they are laid out."""
DIALS_OF_FORMAT_1 = ("rank", "alpha", "rslora", "dora")
STAGES = {
    "BaseRecord": "prepare-base",
    "DataCard": "prepare-data",
    "FootprintRecord": "quantize-base",
    "TrialRecord": "train-lora",
    "EvaluationRecord": "evaluate",
    "ExamplesRecord": "evaluate",
    "MergeRecord": "merge",
}
"""Record type -> the stage that makes it."""


type_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
"""Building an adapter takes longer than using it."""


def write_record(folder: Path, record: Any) -> None:
    """Write `record` to folder/record.json, atomically, as readable JSON with a stable order, with
    its own digest and the sizes of the files that lie in `folder` by then, for `read_record`."""
    adapter = type_adapter(type(record))
    text = adapter.dump_json(record)
    # JSON has no NaN and no infinity: such a value would be lost, and the record unreadable.
    adapter.validate_json(text)
    content = with_public_addresses(json.loads(text))
    content[FILES] = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECORD and not path.name.startswith(".")
    }
    content[DIGEST] = _values_sha256(content)
    shown = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / RECORD, shown.encode())


def read_record(folder: Path, record_type: type[T]) -> T:
    """Read a record back. It is held against its digest, and its files against their sizes, always:
    that costs little. Their bytes are looked at where they are used, by `require_content`.

    Raises:
        RecordError: the record is missing, damaged, edited, of another kind, or without its files.
    """
    path = folder / RECORD
    stage = f"`lorascope {STAGES.get(record_type.__name__, 'status')}`"
    again = f"Delete {folder} and run {stage} again."
    try:
        text = path.read_bytes()
        key = "record", record_type.__name__, hashlib.sha256(text).hexdigest()
        read = kept(key, lambda: _read(text, record_type))
    except FileNotFoundError as error:
        raise RecordError(
            f"{path}: no record here. Run {stage} first (`lorascope status` shows all of it)."
        ) from error
    except ValueError as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RecordError(
            f"{path}: not a readable {record_type.__name__}: {why}. {again}"
        ) from error
    if read.is_edited:
        raise RecordError(
            f"{path}: edited since it was written: its values are not those that were measured. "
            f"Put the old file back, or: {again}"
        )
    _require_files(folder, read.files_bytes, again)
    return read.record


@dataclass(frozen=True)
class _Read(Generic[T]):
    """What the text of a record says."""

    record: T
    is_edited: bool
    """Whether it is other than its own digest says; a record from before there were digests says
    nothing about itself, nor about files."""
    files_bytes: dict[str, int]


def _read(text: bytes, record_type: type[T]) -> _Read[T]:
    content = json.loads(text)
    present = in_format_2(content)
    text = text if present is content else json.dumps(present).encode()
    record: T = type_adapter(record_type).validate_json(text)
    told = content.pop(DIGEST, None)
    is_edited = told is not None and told != _values_sha256(content)
    return _Read(record, is_edited, content.get(FILES, {}))


def in_format_2(content: Any) -> Any:
    """A record in the present format: format 1 knew one method, whose dials stood in the trial's
    key beside the other fields."""
    key = content.get("key") if isinstance(content, dict) else None
    if not isinstance(key, dict) or "dials" in key:
        return content
    dials = {name: key[name] for name in DIALS_OF_FORMAT_1 if name in key}
    others = {name: value for name, value in key.items() if name not in dials}
    return {**content, "key": {**others, "method": "lora", "dials": dials}}


def _require_files(folder: Path, files_bytes: Mapping[str, int], again: str) -> None:
    """Hold the files beside a record against the sizes that it names."""
    for name, size_bytes in files_bytes.items():
        file = folder / name
        try:
            found_bytes = file.stat().st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RecordError(f"{file}: missing, though its record names it. {again}") from error
        if found_bytes != size_bytes:
            raise RecordError(
                f"{file}: damaged or exchanged: {found_bytes} bytes, and its record names "
                f"{size_bytes}. {again}"
            )


def _values_sha256(content: dict[str, Any]) -> str:
    """Digest of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
        found = kept_sha256(path, sha256_of_file) if path.is_file() else None
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
