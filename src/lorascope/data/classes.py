"""Rows that belong to classes: one or two texts, and the class that they have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lorascope.config import DataConfig
from lorascope.data.card import SampleCount
from lorascope.data.conversations import Conversation, Turn, shortened, text_column
from lorascope.data.files import RawRow
from lorascope.data.rows import PreparedRow, Segment
from lorascope.data.tokenization import ROWS_A_CALL, Tokenizer
from lorascope.data.unfit_rows import RowError

FORM = "labelled"


def labelled(row: RawRow, config: DataConfig) -> Conversation:
    """A row with a text, another one where data.second_text_column names it, and its class."""
    columns = [config.text_column, config.second_text_column]
    texts = [text_column(row, column, FORM, asks=True) for column in columns if column]
    name = _class_of(row, config)
    return Conversation(
        (Turn("user", "\n".join(texts)), Turn("assistant", name)),
        choices=tuple(config.classes),
        answer=name,
        rendered=tuple(Segment(text, False) for text in texts),
        place=row.place,
    )


def _class_of(row: RawRow, config: DataConfig) -> str:
    """The class that a row names, or whose number, counted from 0, it holds."""
    column, classes = config.label_column, config.classes
    if column not in row.values:
        raise RowError(
            row.place, f"no column {column}",
            f"no column {column!r}, which data.label_column names (columns: {row.columns}). "
            "Correct the name.",
        )  # fmt: skip
    value = row.values[column]
    text = str(value).strip()
    if value is not None and text in classes:
        return text
    if text.isdecimal() and not isinstance(value, bool) and int(text) < len(classes):
        return classes[int(text)]
    raise RowError(
        row.place, f"{column} is no class",
        f"{column}={shortened(value)} is neither one of data.classes={list(classes)} nor the "
        f"number of one, from 0 to {len(classes) - 1}. Correct data.classes, or repair or remove "
        "this row.",
    )  # fmt: skip


def class_row(conversation: Conversation) -> PreparedRow:
    """The texts as they are: no template stands around them, and special tokens are the
    tokenizer's own."""
    texts = conversation.rendered or ()
    return PreparedRow(
        item=conversation.item,
        segments=list(texts),
        prompt="\n".join(segment.text for segment in texts),
        completion=str(conversation.answer),
        choices=list(conversation.choices or ()),
        answer=conversation.answer,
        cluster=conversation.cluster,
        group=conversation.group,
    )


@dataclass(frozen=True)
class TokenizedText:
    """The ids of a row, and its class."""

    ids: list[int]
    label: int
    types: list[int] | None
    """1 in the second text; None where the model does not tell them apart, or there is one."""

    @property
    def sample(self) -> tuple[list[int], ...]:
        """As an objective takes it."""
        beside = () if self.types is None else (self.types,)
        return self.ids, [self.label], *beside


def tokenize_texts(rows: Sequence[PreparedRow], tokenizer: Any) -> Iterator[TokenizedText]:
    """Each row's ids, with the special tokens that the tokenizer puts around one or two texts."""
    tells_apart = "token_type_ids" in tokenizer.model_input_names
    for start in range(0, len(rows), ROWS_A_CALL):
        chunk = rows[start : start + ROWS_A_CALL]
        texts = [[segment.text for segment in row.segments] for row in chunk]
        pairs = [own[1] for own in texts if len(own) > 1]
        # Too long ones were left out when the rows were prepared: nothing is cut here.
        encoded = tokenizer(
            [own[0] for own in texts], pairs or None, return_token_type_ids=bool(pairs)
        )
        types = encoded.get("token_type_ids") if pairs and tells_apart else None
        for index, row in enumerate(chunk):
            yield TokenizedText(
                list(encoded["input_ids"][index]),
                (row.choices or []).index(str(row.answer)),
                None if types is None else list(types[index]),
            )


def count_text(text: TokenizedText, tokenizer: Tokenizer) -> SampleCount:
    """Token counts of one sample, of which the class is all that is trained."""
    ids, unknown = text.ids, tokenizer.unk_token_id
    ends = (tokenizer.eos_token_id, tokenizer.bos_token_id)
    counted = unknown is not None and unknown not in ends
    return SampleCount(
        tokens=len(ids),
        trained=1,
        unknown=sum(token == unknown for token in ids) if counted else 0,
        eos_trained=False,
    )


def rows_by_class(rows: Sequence[PreparedRow]) -> dict[str, int]:
    """Class -> rows, in the order of the classes."""
    found = Counter(str(row.answer) for row in rows)
    return {name: found[name] for name in (rows[0].choices or ()) if rows}
