"""The prepared row, which training, evaluation and merging read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lorascope.errors import DataError


@dataclass(frozen=True)
class Segment:
    """A stretch of rendered text, trained on or only read."""

    text: str
    trained: bool


@dataclass(frozen=True)
class PreparedRow:
    """One sample, rendered. All special tokens stand in the text as their literal strings, so that
    tokenizing with `add_special_tokens=False` gives training and evaluation the same tokens."""

    item: str
    """Hash of the source conversation: the row's identity across splits and runs."""
    segments: list[Segment]
    """The whole sample for training; the last one is trained and ends with end-of-text."""
    prompt: str
    """All text before the last completion, without trailing whitespace; for evaluation."""
    completion: str
    """The last completion as trained, the end-of-text token included; for evaluation."""
    choices: list[str] | None = None
    """Rendered completions without end-of-text; for scoring=choices."""
    answer: str | None = None
    """Text that a generation must match (scoring=answer), or the right choice (scoring=choices)."""
    cluster: str | None = None
    """Hash of what this row shares with others; None where it shares nothing."""
    rejected: str | None = None
    """The reply that was liked less, rendered as `completion` is; None where there is no pair."""
    group: str | None = None
    """What kind of row it is, as data.group has it; None where the data has no kinds."""

    @property
    def text(self) -> str:
        """The whole rendered sample."""
        return "".join(segment.text for segment in self.segments)

    @property
    def with_rejected(self) -> PreparedRow:
        """The row with the rejected reply in place of the chosen one."""
        assert self.rejected is not None
        segments = [*self.segments[:-1], Segment(self.rejected, True)]
        return replace(self, segments=segments, completion=self.rejected, rejected=None)


def write_rows(path: Path, rows: list[PreparedRow]) -> None:
    """Write rows as JSON lines, keys sorted, so that equal rows give equal bytes."""
    lines = [json.dumps(_plain(row), ensure_ascii=False, sort_keys=True) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _plain(row: PreparedRow) -> dict[str, Any]:
    """Rows without a pair are written as they were before there were pairs, and without a group as
    before there were groups: to the byte."""
    later = ("rejected", "group")
    return {k: v for k, v in asdict(row).items() if v is not None or k not in later}


def read_rows(path: Path) -> list[PreparedRow]:
    """Read what `write_rows` wrote; DataError where it is missing or damaged."""
    if not path.is_file():
        raise DataError(f"{path}: no prepared split here. Run `lorascope prepare-data` first.")
    rows = []
    # Not splitlines(): web text holds U+2028 and its like, which end a line for it but not here.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            values = json.loads(line)
            segments = [Segment(**segment) for segment in values.pop("segments")]
            rows.append(PreparedRow(segments=segments, **values))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}, line {number}: damaged ({error}). Delete the folder and run "
                "`lorascope prepare-data` again."
            ) from error
    return rows
