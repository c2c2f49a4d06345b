"""Formats of preference pairs: a prompt, the reply that was chosen, and one that was rejected.

What both replies answer must be the same; training and scoring compare the replies alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lorascope.config import Format
from lorascope.data.conversations import Conversation, Turn, shortened, text_column
from lorascope.data.files import RawRow
from lorascope.data.turns import checked, instructed, single, turns_of
from lorascope.data.unfit_rows import RowError

REPLIES = ("chosen", "rejected")


def _pairs(row: RawRow) -> Conversation:
    """`prompt`, `chosen` and `rejected` as texts."""
    prompt = text_column(row, "prompt", "pairs", asks=True)
    chosen, rejected = (text_column(row, reply, "pairs") for reply in REPLIES)
    return replace(single(prompt, chosen, row.place, plain=prompt), rejected=rejected)


def _alpaca_pairs(row: RawRow) -> Conversation:
    """`instruction`, `input`, `chosen` and `rejected`; an `output` beside them is not read."""
    rejected = text_column(row, "rejected", "alpaca_pairs").strip()
    return replace(instructed(row, "chosen", "alpaca_pairs"), rejected=rejected)


def _chat_pairs(row: RawRow) -> Conversation:
    """`chosen` and `rejected` as lists of role and content, whole conversations or replies alone
    behind a `prompt`, which is such a list or the text of a question."""
    chosen, rejected = (_conversation(row, reply) for reply in REPLIES)
    if chosen.turns[:-1] != rejected.turns[:-1]:
        raise RowError(
            row.place, "chosen and rejected reply to different turns",
            "chosen and rejected differ before their last turn, so that they are no two replies to "
            "the same. Repair or remove this row.",
        )  # fmt: skip
    return replace(chosen, rejected=rejected.completion)


def _conversation(row: RawRow, reply: str) -> Conversation:
    if not isinstance(row.values.get(reply), list) or not row.values[reply]:
        raise RowError(
            row.place, f"{reply} is no list of messages",
            f"{reply}={shortened(row.values.get(reply))} must be a list of role and content, as "
            f"format=chat_pairs needs it (columns: {row.columns}). Texts are format=pairs.",
        )  # fmt: skip
    turns = turns_of(row, reply, "chat_pairs")
    if turns[0].role == "assistant":
        turns = [*_prompt(row), *turns]
    return checked(turns, row.place)


def _prompt(row: RawRow) -> list[Turn]:
    """What replies alone answer."""
    if isinstance(row.values.get("prompt"), list):
        return turns_of(row, "prompt", "chat_pairs")
    return [Turn("user", text_column(row, "prompt", "chat_pairs", asks=True).strip())]


PAIR_CONVERTERS: dict[Format, Callable[[RawRow], Conversation]] = {
    Format.pairs: _pairs,
    Format.chat_pairs: _chat_pairs,
    Format.alpaca_pairs: _alpaca_pairs,
}
