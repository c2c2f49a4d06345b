"""The conversation: what every format becomes and every template renders."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Literal

from lorascope.data.files import RawRow
from lorascope.data.rows import Segment
from lorascope.data.unfit_rows import RowError, require_characters

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """One sample before rendering: an optional system turn, then user and assistant in turn."""

    turns: tuple[Turn, ...]
    choices: tuple[str, ...] | None = None
    answer: str | None = None
    plain: str | None = None
    """The prompt under the plain template, where the format has a wording of its own."""
    rendered: tuple[Segment, ...] | None = None
    """The text as it came, with its completions marked; for format=rendered and text."""
    rejected: str | None = None
    """A reply that was liked less than the last one; None where there is no pair."""
    cluster: str | None = field(default=None, compare=False)
    """Hash of what this sample shares with others; no part of the item."""
    group: str | None = field(default=None, compare=False)
    """What kind of sample it is; no part of the item."""
    place: str = field(default="", compare=False)
    source: str = field(default="train", compare=False)
    """Key in the config that named its file or hub split: train, validation or test."""
    cut_question: bool = field(default=False, compare=False)
    """Whether a closing question without a reply was left out."""
    unread: tuple[str, ...] = field(default=(), compare=False)
    """Keys of its messages that no format reads, such as tool_calls."""

    @property
    def completion(self) -> str:
        """The last reply."""
        return self.turns[-1].content

    @property
    def item(self) -> str:
        """Hash of the content: equal for equal conversations, whatever their place."""
        turns = [[turn.role, turn.content] for turn in self.turns]
        text = [segment.text for segment in self.rendered or ()]
        pair = () if self.rejected is None else (self.rejected,)
        return digest_of([turns, self.choices, self.answer, self.plain, text, *pair])

    @property
    def with_rejected(self) -> Conversation:
        """The same conversation with the rejected reply at its end."""
        assert self.rejected is not None
        last = replace(self.turns[-1], content=self.rejected)
        return replace(self, turns=(*self.turns[:-1], last), rejected=None)

    @property
    def has_equal_replies(self) -> bool:
        """Whether its pair says nothing: both replies are the same text."""
        return self.rejected is not None and self.rejected.strip() == self.completion.strip()

    @property
    def opening(self) -> str:
        """Hash of system message and first question: what must never stand in two splits. Every
        conversation that asks the same thing, or goes on from it, has the same opening. A text that
        asks nothing is its own."""
        last = len(self.turns) - 1
        first = next((i for i, turn in enumerate(self.turns) if turn.role == "user"), last)
        return digest_of([[turn.role, turn.content] for turn in self.turns[: first + 1]])


def cluster_of(row: RawRow, column: str | None) -> str | None:
    """Hash of the row's value in the column that data.cluster names, None where it names none;
    RowError where the row has no value there."""
    value = _named_column(row, column, "data.cluster")
    return None if value is None else digest_of(value)[:16]


def group_of(row: RawRow, column: str | None) -> str | None:
    """The row's value in the column that data.group names, without outer blanks; else as
    `cluster_of`."""
    value = _named_column(row, column, "data.group")
    if value is not None and not value.strip():
        raise RowError(
            row.place, f"{column} is empty",
            f"{column} is empty, and data.group names it. Fill it in, or leave data.group empty.",
        )  # fmt: skip
    return None if value is None else value.strip()


def _named_column(row: RawRow, column: str | None, key: str) -> str | None:
    """A value as text; None where `key` names no column."""
    if column is None:
        return None
    value = row.values.get(column)
    if value is None:
        raise RowError(
            row.place, f"no value in column {column}",
            f"no value in column {column!r}, which {key} names (columns: {row.columns}). "
            f"Fill it in, correct the name, or leave {key} empty.",
        )  # fmt: skip
    require_characters(row.place, str(value))
    return str(value)


def digest_of(value: object) -> str:
    """Digest of plain data."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


def text_column(
    row: RawRow, column: str, form: str, allow_empty: bool = False, asks: bool = False
) -> str:
    """A text column, present and not blank."""
    if column not in row.values:
        raise RowError(
            row.place, f"no column {column}",
            f"no column {column!r}, which format={form} needs (columns: {row.columns}). Rename "
            "the column, or choose the format that fits in data.format.",
        )  # fmt: skip
    value = row.values[column]
    if allow_empty and value is None:
        return ""
    if value is not None and not isinstance(value, str):
        raise RowError(
            row.place, f"{column} is not text",
            f"{column}={shortened(value)} is a {type(value).__name__}, but must be text. Repair or "
            "remove this row.",
        )  # fmt: skip
    if value is None or not (allow_empty or value.strip()):
        raise RowError(
            row.place, f"{column} is empty",
            f"{column} is empty{' (null)' if value is None else ''}, so there is nothing to "
            f"{'ask' if asks else 'train on'}. Fill in or remove this row.",
        )  # fmt: skip
    require_characters(row.place, value)
    return value


def shortened(value: object) -> str:
    """A value as Python writes it, cut where it would fill the screen."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


SHOWN_CHARACTERS = 80
