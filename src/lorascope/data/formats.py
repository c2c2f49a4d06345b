"""Formats: functions from a raw row to a conversation, each strict about what it needs."""

from __future__ import annotations

from collections.abc import Callable

from lorascope.config import Format
from lorascope.data.conversations import Conversation, Turn, shortened, text_column
from lorascope.data.dialogues import from_chat, from_rendered, from_turns
from lorascope.data.files import RawRow
from lorascope.data.unfit_rows import RowError, require_characters


def to_conversation(row: RawRow, form: Format) -> Conversation:
    """Read one row as `form`.

    Raises:
        RowError: a column is missing, of the wrong type, empty, or its content does not fit.
    """
    if row.fault:
        raise RowError(row.place, row.fault, f"{row.fault}. Repair or remove this row.")
    return CONVERTERS[form](row)


def single(question: str, reply: str, place: str, plain: str | None = None) -> Conversation:
    """One question, one reply."""
    turns = (Turn("user", question), Turn("assistant", reply))
    return Conversation(turns, plain=plain, place=place)


def _prompt_completion(row: RawRow) -> Conversation:
    form = "prompt_completion"
    prompt = text_column(row, "prompt", form, asks=True)
    completion = text_column(row, "completion", form)
    turns = (Turn("user", prompt), Turn("assistant", completion))
    answer = row.values.get("answer")
    choices = _choices(row, answer)
    if answer is not None and not isinstance(answer, str):
        raise RowError(
            row.place, "answer is not text",
            f"answer={shortened(answer)} must be text. Put quotes around it.",
        )  # fmt: skip
    if answer is not None and not answer.strip():
        raise RowError(
            row.place, "answer is empty",
            "answer is empty, so no reply could be right. Fill it in, or leave the column out: the "
            "completion is then the answer.",
        )  # fmt: skip
    require_characters(row.place, answer, *(choices or ()))
    return Conversation(turns, choices, answer, plain=prompt, place=row.place)


def _choices(row: RawRow, answer: object) -> tuple[str, ...] | None:
    choices = row.values.get("choices")
    if choices is None:
        return None
    texts = [c for c in choices if isinstance(c, str)] if isinstance(choices, list) else []
    filled = {text.strip() for text in texts} - {""}
    if not isinstance(choices, list) or len(filled) != len(choices) or len(choices) < 2:
        raise RowError(
            row.place, "choices are not a list of different texts",
            f"choices={shortened(choices)} must be a list of two or more different texts. Repair "
            "or remove this row.",
        )  # fmt: skip
    if answer not in texts:
        raise RowError(row.place, "answer is none of the choices", _none_of(answer, texts))
    return tuple(texts)


def _none_of(answer: object, choices: list[str]) -> str:
    problem = f"answer={shortened(answer)} is none of choices={shortened(choices)}. "
    if type(answer) is int and 0 <= answer < len(choices):
        return (
            f"{problem}It must be the text of the right choice, not its number: counted from 0, "
            f"that is {choices[answer]!r}."
        )
    return f"{problem}Write it exactly as among the choices."


def _question_answer(row: RawRow) -> Conversation:
    question = text_column(row, "question", "question_answer", asks=True).strip()
    answer = text_column(row, "answer", "question_answer").strip()
    return single(question, answer, row.place, plain=f"Question: {question}\nAnswer:")


def _source_target(row: RawRow) -> Conversation:
    line = text_column(row, "text", "source_target")
    if line.count("||") != 1:
        raise RowError(
            row.place, "not one separator ||",
            f"{line.count('||')} separators '||', but format=source_target needs one, between "
            f"source and target: {line[:80]!r}. Repair or remove this line.",
        )  # fmt: skip
    source, target = (part.strip() for part in line.split("||"))
    if not source or not target:
        side = "source" if not source else "target"
        raise RowError(
            row.place, f"{side} is empty",
            f"the {side} beside '||' is empty. Fill in or remove this line.",
        )  # fmt: skip
    return single(source, target, row.place, plain=f"{source} ||")


ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)


def _alpaca(row: RawRow) -> Conversation:
    instruction = text_column(row, "instruction", "alpaca", asks=True).strip()
    extra = ""
    if "input" in row.values:
        extra = text_column(row, "input", "alpaca", allow_empty=True).strip()
    output = text_column(row, "output", "alpaca").strip()
    plain = (ALPACA_INPUT if extra else ALPACA).format(instruction=instruction, input=extra)
    return single(f"{instruction}\n\n{extra}" if extra else instruction, output, row.place, plain)


CONVERTERS: dict[Format, Callable[[RawRow], Conversation]] = {
    Format.prompt_completion: _prompt_completion,
    Format.question_answer: _question_answer,
    Format.source_target: _source_target,
    Format.alpaca: _alpaca,
    Format.chat: from_chat,
    Format.turns: from_turns,
    Format.rendered: from_rendered,
}
