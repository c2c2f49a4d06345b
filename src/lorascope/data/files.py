"""Local files of rows: each row with its place, each damage with its line and a remedy.

A file that is not what its ending says is an error: what it lacks cannot be known. A row that is
whole but of no use is passed on with its fault, to be counted with the others of its kind.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.data.unfit_rows import first_faults
from lorascope.errors import ConfigError, DataError

LONGEST_CSV_FIELD = 2**31 - 1
"""Python's own limit of 131,072 characters is shorter than documents that people train on."""


@dataclass(frozen=True)
class RawRow:
    """One row as it stands in its source."""

    values: dict[str, object]
    place: str
    """Place of the row for messages, e.g. 'data/raw/rows.jsonl, line 7'."""
    fault: str = ""
    """Reason why the row is of no use, although its file can be read; empty for a sound row."""

    @property
    def columns(self) -> str:
        return ", ".join(map(str, self.values)) or "none"


def read_file(key: str, name: str, root: Path) -> list[RawRow]:
    """The rows of one local file; `key` is the config key that named it. ConfigError where its
    ending is not known, DataError where it is missing, damaged or empty."""
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
    rows = list(reader(path, name))
    if not rows:
        raise DataError(f"{key}={name!r}: the file holds no rows. Fill it or name another one.")
    return rows


def _text(path: Path, name: str) -> str:
    """A file's text, without a byte order mark, its line ends as they are."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{name}, line {line}: not UTF-8 text ({error}). Convert the file to UTF-8."
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"{name}, line {line}: holds a NUL character, as UTF-16 and binary files do. Convert "
            "the file to UTF-8, or remove the character."
        )
    return text


def _require_whole(faults: list[str], remedy: str) -> None:
    """Raise DataError with the first faults of a file, if there are any."""
    if faults:
        end = ". " if len(faults) == 1 else "\n"
        raise DataError(f"{first_faults(faults)}{end}{remedy}")


class _JsonDecoder(json.JSONDecoder):
    """Notes keys that stand twice in one object: the first value would be lost."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.repeated: list[str] = []

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self.repeated += [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
        return dict(pairs)

    def row(self, value: object, place: str) -> RawRow:
        """The row that was decoded last."""
        repeated, self.repeated = self.repeated, []
        if not isinstance(value, dict):
            kind = type(value).__name__
            return RawRow({}, place, f"a {kind}, where a JSON object with named columns belongs")
        fault = f"key {repeated[0]!r} stands twice in one object" if repeated else ""
        return RawRow(value, place, fault)


JSON_ERRORS = (ValueError, RecursionError)
"""Errors for invalid JSON, numbers of thousands of digits, and thousands of nested brackets."""


def _read_jsonl(path: Path, name: str) -> Iterator[RawRow]:
    decoder, faults = _JsonDecoder(), []
    for number, line in enumerate(io.StringIO(_text(path, name), newline=None), start=1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            yield decoder.row(decoder.decode(line.strip()), place)
        except JSON_ERRORS as error:
            faults.append(f"{place}: not valid JSON ({_fault(error)})")
    _require_whole(
        faults,
        "A .jsonl file holds one JSON object a line: repair or remove these lines, or copy the "
        "file again if it was cut off.",
    )


def _fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error)


def _read_json(path: Path, name: str) -> Iterator[RawRow]:
    text = _text(path, name)
    try:
        yield from _list_items(text, name)
    except JSON_ERRORS as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"{name}{line}: not valid JSON ({_fault(error)}). Repair it, copy it again if it was "
            "cut off, or call the file .jsonl if it holds one object a line."
        ) from error


def _list_items(text: str, name: str) -> Iterator[RawRow]:
    """The rows of a JSON list, read one by one, so that each knows its line."""
    decoder, line, counted, start = _JsonDecoder(), 1, 0, _behind_blanks(text, 0)
    if not text.startswith("[", start):
        kind = type(json.loads(text)).__name__ if text.strip() else "blank text"
        raise DataError(
            f"{name}: holds a {kind}, but a .json source is a list of objects. Wrap the rows in "
            "[ ... ]."
        )
    for number in itertools.count(1):
        start = _behind_blanks(text, start + 1)
        if number == 1 and text.startswith("]", start):
            break
        line, counted = line + text.count("\n", counted, start), start
        value, end = decoder.raw_decode(text, start)
        yield decoder.row(value, f"{name}, row {number} (line {line})")
        start = _behind_blanks(text, end)
        if text.startswith("]", start):
            break
        if not text.startswith(",", start):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, start)
    rest = _behind_blanks(text, start + 1)
    if rest < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)


def _behind_blanks(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\n", "\r"):
        position += 1
    return position


def _read_csv(path: Path, name: str) -> Iterator[RawRow]:
    csv.field_size_limit(LONGEST_CSV_FIELD)
    reader = csv.DictReader(io.StringIO(_text(path, name), newline=""), strict=True)
    faults = []
    try:
        header = reader.fieldnames or []
        _require_header(header, name)
        for values in reader:
            place = f"{name}, line {reader.line_num}"
            if None in values or None in values.values():
                faults.append(f"{place}: not the {len(header)} fields that the header names")
            else:
                yield RawRow(dict(values), place)
    except csv.Error as error:
        raise DataError(
            # A quote that is never closed swallows the rest of the file: it stands behind the last
            # row that was whole.
            f"{name}, line {reader.line_num + 1}: not valid CSV ({error}). Check its quotes; if "
            "the file was cut off, copy it again."
        ) from error
    _require_whole(
        faults,
        "A field that holds a comma or a line break needs quotes around it: repair these lines, or "
        "copy the file again if it was cut off.",
    )


def _require_header(header: Any, name: str) -> None:
    repeated = [column for column, n in Counter(header).items() if n > 1]
    if repeated:
        raise DataError(
            f"{name}, line 1: the header names column {repeated[0]!r} twice, so that one would "
            "hide the other. Rename or remove one."
        )
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise DataError(
            f"{name}, line 1: the header {header[0]!r} is one field. Fields of a .csv file are "
            "separated by commas: export it so."
        )


def _read_parquet(path: Path, name: str) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{name}: not a readable Parquet file ({error}). Copy or export it again."
        ) from error
    repeated = [column for column, n in Counter(table.column_names).items() if n > 1]
    if repeated:
        raise DataError(f"{name}: column {repeated[0]!r} stands twice. Rename or remove one.")
    columns = {column: _column_values(table, column, name) for column in table.column_names}
    for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
        yield RawRow(dict(zip(columns, values, strict=True)), f"{name}, row {number}")


def _column_values(table: Any, column: str, name: str) -> list[object]:
    import pyarrow

    try:
        values: list[object] = table[column].to_pylist()
    except (pyarrow.ArrowException, ValueError, OverflowError, TypeError) as error:
        raise DataError(
            f"{name}: column {column!r} of type {table[column].type} holds what cannot be read "
            f"({error}). Export it as text, or leave the column out."
        ) from error
    return values


def _read_text(path: Path, name: str) -> Iterator[RawRow]:
    for number, line in enumerate(io.StringIO(_text(path, name), newline=None), start=1):
        if line.strip():
            yield RawRow({"text": line.rstrip("\n")}, f"{name}, line {number}")


READERS: dict[str, Callable[[Path, str], Iterator[RawRow]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
