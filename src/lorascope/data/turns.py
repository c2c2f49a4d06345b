"""What several formats read alike: a question and its reply, an instruction, a list of messages."""

from __future__ import annotations

from typing import Any, cast

from lorascope.data.conversations import Conversation, Role, Turn, shortened, text_column
from lorascope.data.files import RawRow
from lorascope.data.unfit_rows import RowError


def single(question: str, reply: str, place: str, plain: str | None = None) -> Conversation:
    """One question, one reply."""
    turns = (Turn("user", question), Turn("assistant", reply))
    return Conversation(turns, plain=plain, place=place)


ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)


def instructed(row: RawRow, reply: str, form: str) -> Conversation:
    """An instruction, its input where it has one, and the reply in the column `reply`."""
    instruction = text_column(row, "instruction", form, asks=True).strip()
    extra = ""
    if "input" in row.values:
        extra = text_column(row, "input", form, allow_empty=True).strip()
    output = text_column(row, reply, form).strip()
    plain = (ALPACA_INPUT if extra else ALPACA).format(instruction=instruction, input=extra)
    return single(f"{instruction}\n\n{extra}" if extra else instruction, output, row.place, plain)


ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


def turns_of(
    row: RawRow, column: str, form: str, speaker: str = "role", said: str = "content"
) -> list[Turn]:
    """The turns of a column that holds a list of messages."""
    messages = cast("list[Any]", row.values[column])
    turns = []
    for number, message in enumerate(messages, start=1):
        place = f"{row.place}, {column}[{number}]"
        if not isinstance(message, dict) or speaker not in message or said not in message:
            raise RowError(
                place, f"a turn lacks {speaker} or {said}",
                f"must have {speaker!r} and {said!r}, not {shortened(message)}.",
            )  # fmt: skip
        role = ROLES.get(str(message[speaker]))
        if role is None:
            known = ", ".join(ROLES)
            raise RowError(
                place, f"a turn by an unknown {speaker}",
                f"unknown {speaker}={shortened(message[speaker])}. Known are {known}: rename or "
                "remove this turn.",
            )  # fmt: skip
        turns.append(Turn(role, text_column(RawRow(message, place), said, form).strip()))
    return turns


def checked(turns: list[Turn], place: str, cut_question: bool = False) -> Conversation:
    """A conversation whose turns alternate, hold text, and end with a reply."""
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    for number, turn in enumerate(spoken):
        expected = "user" if number % 2 == 0 else "assistant"
        if turn.role != expected:
            raise RowError(
                place, "turns that do not alternate",
                f"turn {number + 1} is by the {turn.role}, where the {expected} must speak: turns "
                "alternate, from a user's question to an assistant's reply. Repair this row.",
            )  # fmt: skip
        if not turn.content:
            raise RowError(
                place, "an empty turn",
                f"turn {number + 1} ({turn.role}) is empty. Fill in or remove this row.",
            )  # fmt: skip
    if len(spoken) < 2 or spoken[-1].role != "assistant":
        raise RowError(
            place, "no reply at the end",
            "ends without an assistant's reply, so there is nothing to train on. Add the reply or "
            "remove this row.",
        )  # fmt: skip
    return Conversation(tuple(turns), place=place, cut_question=cut_question)
