"""Raw rows: read from a local file, the hub or the built-in generator, each with its place.

The place (file and line, or hub split and row) travels with the row, so that whatever is found
wrong with it later names where to look.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lorascope.config import DataConfig, DataKind
from lorascope.data.biographies import (
    ASKED_PEOPLE,
    NEW_PEOPLE,
    OLD_PEOPLE,
    Row,
    make_biographies,
)
from lorascope.errors import ConfigError, DataError
from lorascope.layout import SPLITS


@dataclass(frozen=True)
class RawRow:
    """One row as its source has it."""

    values: dict[str, object]
    place: str
    """For messages, e.g. 'data/raw/rows.jsonl, line 7'."""


def read_source(config: DataConfig, root: Path) -> dict[str, list[RawRow]]:
    """All raw rows by the split that the config names; train always, the others where given.

    Raises:
        ConfigError: no source of that kind, or a file type that is not known.
        DataError: a file is missing or malformed, or the hub cannot be reached.
    """
    if config.kind is DataKind.biographies:
        return _read_biographies(config)
    named = {split: name for split in SPLITS if (name := getattr(config, split))}
    if config.kind is DataKind.hub:
        return {split: _read_hub(config, split, name) for split, name in named.items()}
    return {split: read_file(f"data.{split}", name, root) for split, name in named.items()}


def describe_source(config: DataConfig) -> str:
    """Where the rows come from, in words for the data card."""
    if config.kind is DataKind.biographies:
        return f"built-in biographies, seed {config.seed}"
    splits = ", ".join(f"{s}={v}" for s in SPLITS if (v := getattr(config, s)))
    if config.kind is DataKind.hub:
        subset = f" ({config.subset})" if config.subset else ""
        return f"hub: {config.repository}{subset} @ {config.revision}: {splits}"
    return f"local: {splits}"


def read_file(key: str, name: str, root: Path) -> list[RawRow]:
    """The rows of one local file; `key` is the config key that named it.

    Raises:
        ConfigError: the ending is none of the known ones.
        DataError: the file is missing, malformed or empty.
    """
    path = root / name
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise ConfigError(
            key, name, f"unknown file type {path.suffix or '(none)'!r}", f"Use one of {known}."
        )
    if not path.is_file():
        raise DataError(
            f"{key}={name!r}: no such file (looked for {path}). Paths are relative to the "
            "project's root: check the spelling, or put the file there."
        )
    try:
        rows = list(reader(path, name))
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text ({error}). Convert the file to UTF-8.") from error
    if not rows:
        raise DataError(f"{key}={name!r}: the file holds no rows. Fill it or name another one.")
    return rows


def _read_jsonl(path: Path, name: str) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            place = f"{name}, line {number}"
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{place}: not valid JSON ({error.msg} at column {error.colno}). A .jsonl file "
                    "holds one JSON object a line: repair or remove this line."
                ) from error
            yield RawRow(_require_object(values, place), place)


def _read_json(path: Path, name: str) -> Iterator[RawRow]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno}). "
            "Repair it, or call the file .jsonl if it holds one object a line."
        ) from error
    if not isinstance(rows, list):
        raise DataError(
            f"{name}: holds a {type(rows).__name__}, but a .json source is a list of objects. "
            "Wrap the rows in [ ... ]."
        )
    for number, values in enumerate(rows, start=1):
        place = f"{name}, row {number}"
        yield RawRow(_require_object(values, place), place)


def _require_object(values: object, place: str) -> dict[str, object]:
    if not isinstance(values, dict):
        raise DataError(
            f"{place}: holds a {type(values).__name__}, but each row is a JSON object with named "
            "columns. Repair or remove this row."
        )
    return values


def _read_csv(path: Path, name: str) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            for values in reader:
                place = f"{name}, line {reader.line_num}"
                if None in values or None in values.values():
                    raise DataError(
                        f"{place}: not the {len(reader.fieldnames or [])} fields that the header "
                        "names. A field that holds a comma or a line break needs quotes around it."
                    )
                yield RawRow(dict(values), place)
        except csv.Error as error:
            raise DataError(
                f"{name}, line {reader.line_num}: not valid CSV ({error}). Check its quotes."
            ) from error


def _read_parquet(path: Path, name: str) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{name}: not a readable Parquet file ({error}). Copy or export it again."
        ) from error
    for number, values in enumerate(rows, start=1):
        yield RawRow(values, f"{name}, row {number}")


def _read_text(path: Path, name: str) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield RawRow({"text": line.rstrip("\n")}, f"{name}, line {number}")


READERS: dict[str, Callable[[Path, str], Iterator[RawRow]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}


def _read_hub(config: DataConfig, split: str, name: str) -> list[RawRow]:
    import datasets

    try:
        rows = datasets.load_dataset(
            config.repository, config.subset, revision=config.revision, split=name
        )
    except (OSError, ValueError, RuntimeError) as error:
        warm = f"hf download --repo-type dataset {config.repository} --revision {config.revision}"
        raise DataError(
            f"data.repository={config.repository!r} (subset {config.subset!r}, revision "
            f"{config.revision!r}, split data.{split}={name!r}): could not be loaded: {error}. "
            f"Without network: run `lorascope prepare-data` (or `{warm}`) once where there is one, "
            "bring the hub cache along and set HF_HUB_OFFLINE=1. With network: check the spelling "
            "of id, subset, revision and split."
        ) from error
    if not len(rows):
        raise DataError(f"{config.repository}, split {name}: holds no rows. Name another split.")
    place = f"{config.repository}, split {name}"
    return [RawRow(dict(row), f"{place}, row {i}") for i, row in enumerate(rows, start=1)]


def _read_biographies(config: DataConfig) -> dict[str, list[RawRow]]:
    made = make_biographies(OLD_PEOPLE, NEW_PEOPLE, ASKED_PEOPLE, config.seed)
    return {split: _raw_biographies(split, getattr(made, split)) for split in SPLITS}


def _raw_biographies(split: str, rows: tuple[Row, ...]) -> list[RawRow]:
    return [
        RawRow(
            {
                "prompt": row.prompt,
                "completion": row.completion,
                "answer": row.answer,
                "person": row.person,
            },
            f"biographies, {split} row {number}",
        )
        for number, row in enumerate(rows, start=1)
    ]
