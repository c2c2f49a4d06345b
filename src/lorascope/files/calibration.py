"""The records of what a stored model owes to rows of train, beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from lorascope.errors import RecordError
from lorascope.files.replacing import write_atomically
from lorascope.files.store import type_adapter
from lorascope.records import CalibrationRecord, RoundingRecord

FILES: dict[type, str] = {CalibrationRecord: "calibration.json", RoundingRecord: "rounding.json"}
R = TypeVar("R", CalibrationRecord, RoundingRecord)


def write_beside_model(folder: Path, record: CalibrationRecord | RoundingRecord) -> None:
    """Write `record` beside the stored model in `folder`, whose content it is part of."""
    text = type_adapter(type(record)).dump_json(record, indent=2)
    write_atomically(folder / FILES[type(record)], text + b"\n")


def read_beside_model(folder: Path, kind: type[R]) -> R:
    """Read what `write_beside_model` wrote; RecordError where it is missing or damaged."""
    path = folder / FILES[kind]
    again = "Make the stored model again."
    if not path.is_file():
        raise RecordError(f"{path}: no such record here. {again}")
    try:
        record: R = type_adapter(kind).validate_json(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path}: not a readable {kind.__name__} ({error}). {again}") from error
    return record
