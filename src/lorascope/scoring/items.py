"""Scored items: their file, and the scores of a split. No torch: reports read this too."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, NotRequired, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from lorascope.errors import DataError, RecordError
from lorascope.files.replacing import write_atomically
from lorascope.records import ItemResult, ItemTable, SplitScore, item_column

Columns = dict[str, Sequence[Any]]
"""Field of `ItemResult` -> its values [items]."""
_DEFAULTS = {field.name: field.default for field in fields(ItemResult)}
_TYPES = get_type_hints(ItemResult)
# As mappings items take half the time that they take as objects.
_ROW = TypedDict(  # type: ignore[misc]
    "_ROW",
    {
        name: _TYPES[name] if default is MISSING else NotRequired[_TYPES[name]]
        for name, default in _DEFAULTS.items()
    },
)
_EXACT = {name: set(get_args(kind)) or {kind} for name, kind in _TYPES.items()}
"""Field -> the types of its values."""
_LINE: TypeAdapter[Any] = TypeAdapter(_ROW)
_LINES: TypeAdapter[Any] = TypeAdapter(list[_ROW])


def summarize(items: Sequence[ItemResult]) -> SplitScore:
    """Scores of one split.

    Accuracy is the plain share of right items. Its standard error is lm-eval's own (`mean_stderr`):
    the sample deviation of the zeros and ones (n - 1 below) over sqrt(n), which for proportions is
    sqrt(p (1 - p) / (n - 1)); None for a single item. It is unpaired: comparing two trials on the
    same items wants the paired test over `ItemResult.correct` instead.

    The loss is summed over all tokens and divided once, so that long completions weigh more and
    the value does not depend on batches.

    Raises:
        DataError: there are no items, no tokens, or only some of them can be right or wrong.
    """
    tokens, losses = sum(item_column(items, "tokens")), item_column(items, "loss_nats")
    if not tokens:
        raise DataError(
            f"{len(items)} items with {tokens} completion tokens: nothing to average. Check that "
            "the split has rows and that their completions are not empty."
        )
    judged = _known(items, "correct")
    if judged and len(judged) != len(items):
        raise DataError(
            f"{len(items) - len(judged)} of {len(items)} items are neither right nor wrong: an "
            "accuracy over the others would be of another split. Score the split again."
        )
    accuracy = sum(judged) / len(judged) if judged else None
    by_length, encodings = _known(items, "correct_norm"), _known(items, "stock_encoding")
    return SplitScore(
        items=len(items),
        accuracy=accuracy,
        accuracy_standard_error=_standard_error(accuracy, len(judged)),
        completion_loss_nats=math.fsum(losses) / tokens,
        accuracy_norm=sum(by_length) / len(items) if len(by_length) == len(items) else None,
        items_unlike_stock=encodings.count(False) if len(encodings) == len(items) else None,
        **_margins(items),
    )


def _known(items: Sequence[ItemResult], name: str) -> list[Any]:
    """The values of a field, without those that are None."""
    return [value for value in item_column(items, name) if value is not None]


def _margins(items: Sequence[ItemResult]) -> dict[str, float]:
    """Scores that only pairs have; margins, those that were held against the bare base's."""
    rejected = _known(items, "rejected_loss_nats")
    if len(rejected) < len(items):
        return {}
    odds = (r - own for r, own in zip(rejected, item_column(items, "loss_nats"), strict=True))
    likelier = {"likelier_share": sum(one > 0 for one in odds) / len(items)}
    margins = _known(items, "margin_nats")
    if len(margins) < len(items):
        return likelier
    return likelier | {"margin_nats": math.fsum(margins) / len(items)}


def against_base(items: Sequence[ItemResult], base: Sequence[ItemResult]) -> list[ItemResult]:
    """A trial's pairs with their margins over those of the bare base: right where they are above
    0, and half right where nothing moved. The bare base itself is half right on every pair, so that
    a trial that moves pairs either way at random is as good.

    Raises:
        DataError: they are not the same pairs.
    """
    known = {item.item: item for item in base}
    if known.keys() != {item.item for item in items}:
        raise DataError(
            "the bare base was scored on other pairs than the trial. Delete its scores and run "
            "`lorascope evaluate` again."
        )
    margins = [_log_odds(item) - _log_odds(known[item.item]) for item in items]
    return [
        replace(item, correct=margin > 0 if margin else UNMOVED, margin_nats=margin)
        for item, margin in zip(items, margins, strict=True)
    ]


def _log_odds(item: ItemResult) -> float:
    """Logarithm of how much likelier the chosen reply is than the rejected one."""
    assert item.rejected_loss_nats is not None
    return item.rejected_loss_nats - item.loss_nats


def _standard_error(share: float | None, count: int) -> float | None:
    if share is None or count < 2:
        return None
    return math.sqrt(share * (1 - share) / (count - 1))


UNMOVED = 0.5
"""How right an answer on a pair is that is neither better nor worse than the bare base's."""
OWN = ("correct", "loss_nats", "predicted", "rejected_loss_nats", "margin_nats")
"""Fields that are an evaluation's own; the others all evaluations of a split have alike."""
_LAST_READ: dict[tuple[str, str], Sequence[Any]] = {}
"""(name of the file, field) -> its last values."""
LATER = ("label", "predicted", "rejected_loss_nats", "margin_nats", "group")
"""Fields that items did not always have; where one has no value, nothing is written."""


def write_items(path: Path, items: Sequence[ItemResult]) -> None:
    """Write one JSON object a line, keys sorted: equal items give equal bytes, and floats, written
    as Python's repr, read back as the same."""
    lines = [json.dumps(_values(item), sort_keys=True) + "\n" for item in items]
    write_atomically(path, "".join(lines).encode("ascii"))


def _values(item: ItemResult) -> dict[str, object]:
    """Of items without classes, pairs or groups what stood in their files before there were any."""
    return {k: v for k, v in asdict(item).items() if v is not None or k not in LATER}


def read_items(path: Path) -> ItemTable:
    """Read what `write_items` wrote; RecordError where it is missing or damaged."""
    if not path.is_file():
        raise RecordError(f"{path}: no scored items here. Run `lorascope evaluate` first.")
    return items_in(path, path.read_bytes())


def items_in(path: Path, content: bytes, sha256: str | None = None) -> ItemTable:
    """The items of `content`, which `path` holds; `sha256` is its digest, where it is known."""
    columns = _exact_columns(content)
    if columns is None:
        columns = _columns(_judged_rows(path, content.splitlines()))
    held = {name: _held(path.name, name, column) for name, column in columns.items()}
    return ItemTable(held, sha256)


def _exact_columns(content: bytes) -> Columns | None:
    """The columns of rows that have the very types of `ItemResult`, as those that were written
    have; None of others, which pydantic turns into these or refuses, in twice the time."""
    text = b"[" + content.rstrip(b"\n").replace(b"\n", b",") + b"]"
    try:
        columns = _columns(from_json(text, cache_strings="keys"))
    except (ValueError, AttributeError, TypeError):
        return None
    is_exact = columns.keys() == _EXACT.keys() and all(
        _EXACT[name].issuperset(map(type, column)) for name, column in columns.items()
    )
    return columns if is_exact else None


def _judged_rows(path: Path, lines: Sequence[bytes]) -> list[Any]:
    try:
        # All at once, which is several times faster; one by one where one of them is damaged.
        rows: list[Any] = _LINES.validate_json(b"[" + b",".join(lines) + b"]")
    except ValidationError:
        rows = [_read_line(path, number, line) for number, line in enumerate(lines, start=1)]
    return rows


def _held(file: str, name: str, column: Sequence[Any]) -> Sequence[Any]:
    """`column` in little room: numbers as an array, and of what all evaluations of a split have
    alike, the one that was read before it."""
    if name in OWN and set(map(type, column)) == {float}:
        return array("d", column)
    if _LAST_READ.get((file, name)) != column:
        _LAST_READ[file, name] = column
    return _LAST_READ[file, name]


def _columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Field -> its values [items]; what a line does not say is as by default."""
    names = tuple(rows[0]) if rows else ()
    try:
        found = dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
        # No line has more than the first one.
        is_whole = sum(map(len, rows)) == len(names) * len(rows)
    except (KeyError, TypeError):
        found, is_whole = {}, False
    if is_whole:
        absent = (name for name in _DEFAULTS if name not in found)
        return {**found, **{name: [_DEFAULTS[name]] * len(rows) for name in absent}}
    return {n: [row.get(n, default) for row in rows] for n, default in _DEFAULTS.items()}


def _read_line(path: Path, number: int, line: bytes) -> Any:
    try:
        return _LINE.validate_python(json.loads(line))
    except (ValueError, ValidationError) as error:
        raise RecordError(
            f"{path}, line {number}: not a scored item. Delete {path.parent} and run "
            "`lorascope evaluate` again."
        ) from error
