"""The record of a calibration, beside the stored model that it is part of."""

from __future__ import annotations

from pathlib import Path

from lorascope.errors import RecordError
from lorascope.files.store import type_adapter, write_atomically
from lorascope.records import CalibrationRecord

CALIBRATION = "calibration.json"


def write_calibration(folder: Path, record: CalibrationRecord) -> None:
    """Write `record` beside the stored model in `folder`, whose content it is part of."""
    text = type_adapter(CalibrationRecord).dump_json(record, indent=2)
    write_atomically(folder / CALIBRATION, text + b"\n")


def read_calibration(folder: Path) -> CalibrationRecord:
    """Read what `write_calibration` wrote; RecordError where it is missing or damaged."""
    path = folder / CALIBRATION
    again = "Make the stored model again."
    if not path.is_file():
        raise RecordError(f"{path}: no calibration here. {again}")
    try:
        record: CalibrationRecord = type_adapter(CalibrationRecord).validate_json(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path}: not a readable CalibrationRecord ({error}). {again}") from error
    return record
