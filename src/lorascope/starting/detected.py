"""Which format rows have, and what counts as right on them: tried on the rows themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorascope.config import PAIRS, DataConfig, Format, Scoring
from lorascope.data.conversations import Conversation
from lorascope.data.files import RawRow
from lorascope.data.formats import to_conversation
from lorascope.data.unfit_rows import RowError
from lorascope.errors import ConfigError

TRIED_ROWS = 500
"""Spread over the rows, as the first ones may be unlike the others."""
LEAST_SHARE = 0.5
"""Of tried rows that a format must fit to be taken for theirs."""
MOST_CLASSES = 50
"""Different values of a column `label`; more are texts or numbers, no classes."""
SHORT_WORDS = 5
"""Replies of no more words are scored by exact match."""
GSM8K_ANSWER = r"####\s*(-?[0-9.,]+)"
IN_TURN = (
    Format.chat_pairs, Format.alpaca_pairs, Format.pairs, Format.chat, Format.turns,
    Format.rendered, Format.source_target, Format.alpaca, Format.question_answer,
    Format.prompt_completion, Format.labelled, Format.text,
)  # fmt: skip
"""What asks most of a row comes first: of formats that fit as many rows the first is taken."""
ASKS = ("input", "question", "query", "instruction", "source", "user", "problem", "context")
REPLIES = ("output", "response", "answer", "reply", "target", "assistant", "solution", "label")
"""Columns that people call so are prompts, or completions."""


@dataclass(frozen=True)
class Detected:
    """A dataset's settings with what its rows say, and why."""

    config: DataConfig
    tried: int
    fitting: int
    why_scored: str
    """In words, why the scoring is what it is."""
    unread: tuple[str, ...] = ()
    """Columns that the format does not look at."""


def detect(rows: Sequence[RawRow], config: DataConfig, is_given: bool) -> Detected:
    """`config` with the format and scoring that fit most of `rows`.

    Args:
        is_given: whether the format was asked for, so that no other is tried.

    Raises:
        ConfigError: no format fits.
    """
    tried = list(rows[:: max(1, len(rows) // TRIED_ROWS)])[:TRIED_ROWS]
    forms = (config.format,) if is_given else IN_TURN
    settings = {form: _with_classes(replace(config, format=form), tried) for form in forms}
    read = {form: _read(tried, own) for form, own in settings.items()}
    best = max(forms, key=lambda form: len(read[form]))
    if len(read[best]) < LEAST_SHARE * len(tried) and not is_given:
        raise _unreadable(tried)
    scoring, pattern, why = _scoring(best, read[best])
    found = replace(settings[best], scoring=scoring, answer_pattern=pattern)
    return Detected(found, len(tried), len(read[best]), why, _unread(tried, found))


class _Noted(dict[str, Any]):
    """A row's values, and which of them were looked at."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.seen: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.seen.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)


def _unread(rows: Sequence[RawRow], config: DataConfig) -> tuple[str, ...]:
    """Columns that hold something, and that no row's reading looked at."""
    noted = [_Noted(row.values) for row in rows]
    _read([replace(row, values=values) for row, values in zip(rows, noted, strict=True)], config)
    seen = {config.cluster, config.group}.union(*(values.seen for values in noted))
    filled = (c for row in rows for c, value in row.values.items() if value not in (None, "", []))
    return tuple(column for column in dict.fromkeys(filled) if column not in seen)


def _read(rows: Sequence[RawRow], config: DataConfig) -> list[Conversation]:
    """The rows that have the format."""
    found = []
    for row in rows:
        try:
            found.append(to_conversation(row, config.format, config))
        except RowError:
            continue
    return found


def _with_classes(config: DataConfig, rows: Sequence[RawRow]) -> DataConfig:
    """The classes that a column of labels names; none where it holds anything else."""
    if config.format is not Format.labelled or config.classes:
        return config
    values = {str(row.values.get(config.label_column, "")).strip() for row in rows} - {"", "None"}
    names = sorted(values, key=lambda name: (len(name), name) if name.isdecimal() else (0, name))
    return replace(config, classes=names if 2 <= len(names) <= MOST_CLASSES else [])


def _scoring(form: Format, read: Sequence[Conversation]) -> tuple[Scoring, str | None, str]:
    """What counts as right, the pattern that finds it, and why, in words."""
    if form in PAIRS:
        return Scoring.preference, None, "each row has a chosen and a rejected reply"
    if form is Format.labelled:
        return Scoring.classes, None, "each row has a class"
    if read and all(one.choices for one in read):
        return Scoring.choices, None, "each row brings its choices"
    if form is Format.question_answer and all("####" in one.completion for one in read):
        return Scoring.answer, GSM8K_ANSWER, "solutions end with #### and the answer"
    if read and all(one.answer is not None for one in read):
        return Scoring.answer, None, "each row brings its answer"
    is_whole = form in (Format.text, Format.rendered)
    if read and not is_whole and all(len(c.completion.split()) <= SHORT_WORDS for c in read):
        return Scoring.answer, None, f"no reply has more than {SHORT_WORDS} words: exact match"
    return Scoring.loss, None, "replies are long: their loss is compared"


def _unreadable(rows: Sequence[RawRow]) -> ConfigError:
    """The refusal of columns that no format reads, with the names that would do."""
    columns = list(Counter(column for row in rows for column in row.values))
    asks, replies = _called(columns, ASKS), _called(columns, REPLIES)
    if len(columns) == 2:
        # What is known of one tells the other; of neither, rows ask first.
        asks = asks or next(c for c in columns if c != replies)
        replies = replies or next(c for c in columns if c != asks)
    answering = replies or "the column of the reply"
    renamed = f"{asks or 'the column that asks'} to prompt and {answering} to completion"
    remedy = f"Rename {renamed} in the file. " if asks or replies else ""
    return ConfigError(
        "data", rows[0].place.partition(", ")[0] if rows else "",
        f"no format reads rows with columns {', '.join(columns) or 'of no name'}",
        f"{remedy}Usual are prompt and completion; instruction, input and output; messages; "
        "question and answer; text and label; text alone; prompt, chosen and rejected. A format "
        "is taken as it is with data.format=NAME; docs/own-data.md lists them.",
    )  # fmt: skip


def _called(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that is called as the first of `names` that there is."""
    by_name = {column.lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in names if name in by_name), None)
