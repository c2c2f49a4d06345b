"""Whether scores are what was scored, and those of their items."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lorascope.errors import RecordError
from lorascope.files.kept import kept, kept_sha256
from lorascope.files.layout import DISTRIBUTIONS, RECORD
from lorascope.files.store import read_record, require_content
from lorascope.records import (
    EvaluationRecord,
    Example,
    ExamplesRecord,
    ItemResult,
    ItemTable,
    SplitScore,
)
from lorascope.scoring.examples import read_examples
from lorascope.scoring.items import items_in, summarize


def scored_items(record: EvaluationRecord, folder: Path) -> dict[str, Sequence[ItemResult]]:
    """The scored items of each split, from `folder`, the evaluation's.

    Raises:
        RecordError: a file is missing or not what the record says, or the record's scores are not
            those of its items.
    """
    read = {
        split: _intact_items(folder / f"{split}.jsonl", digest)
        for split, digest in record.items_sha256.items()
    }
    for split, told in record.splits.items():
        if split not in read:
            raise RecordError(f"{folder}: {split} is scored without items. {_score_again(folder)}")
        for name, value, counted in _contradictions(told, read[split][1]):
            raise RecordError(
                f"{folder}: {split} {name}={value} in its record, and its items give {counted}. "
                + _score_again(folder)
            )
    return {split: items for split, (items, _) in read.items()}


def _intact_items(path: Path, digest: str) -> tuple[ItemTable, SplitScore]:
    """The items of one split and their scores, which its digest says, whatever file has it."""
    contents: list[bytes] = []

    def sha256_of(place: Path) -> str:
        contents.append(place.read_bytes())
        return hashlib.sha256(contents[-1]).hexdigest()

    def made() -> tuple[ItemTable, SplitScore]:
        if not contents and sha256_of(path) != digest:
            raise _exchanged(path)
        items = items_in(path, contents[-1], digest)
        return items, summarize(items)

    if not path.is_file() or kept_sha256(path, sha256_of) != digest:
        raise _exchanged(path)
    return kept(("items", digest), made)


def _exchanged(path: Path) -> RecordError:
    found = "damaged or exchanged" if path.is_file() else "missing"
    told = f"{path}: {found}, not what its record was made from."
    return RecordError(f"{told} {_score_again(path.parent)}")


def require_scores(record: EvaluationRecord, folder: Path) -> None:
    """Raise RecordError unless `folder` holds what was scored, and the record is a sum of it."""
    scored_items(record, folder)
    distributions_of(record, folder)


def distributions_of(record: EvaluationRecord, folder: Path) -> Path | None:
    """The checked file of next-token distributions; None where the evaluation has none."""
    if record.distributions_sha256 is None:
        return None
    path = folder / DISTRIBUTIONS
    require_content(path, record.distributions_sha256, _score_again(folder))
    return path


def current_examples(folder: Path, identity: str) -> list[Example] | None:
    """The answers in `folder`; None where there are none, or others than are asked for.

    Raises:
        RecordError: they are not what was kept.
    """
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder, ExamplesRecord)
    return read_examples(record, folder) if record.identity == identity else None


def _contradictions(told: SplitScore, counted: SplitScore) -> list[tuple[str, object, object]]:
    """(field, value in the record, value by its items) where they are not the same number; the last
    digits are those of another summation."""
    pairs = [(f.name, getattr(told, f.name), getattr(counted, f.name)) for f in fields(told)]
    return [
        (name, ours, theirs)
        for name, ours, theirs in pairs
        if (ours is None) != (theirs is None)
        or (ours is not None and not math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12))
    ]


def _score_again(folder: Path) -> str:
    return f"Delete {folder} and run `lorascope evaluate` with the same settings again."
