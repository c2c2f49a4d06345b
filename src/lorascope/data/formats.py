"""Formats: functions from a raw row to a conversation, each strict about what it needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from lorascope.config import DataConfig, Format
from lorascope.data.classes import labelled
from lorascope.data.conversations import Conversation, Turn, shortened, text_column
from lorascope.data.files import RawRow
from lorascope.data.formats_of_pairs import PAIR_CONVERTERS
from lorascope.data.rows import Segment
from lorascope.data.turns import checked, instructed, single, turns_of
from lorascope.data.unfit_rows import RowError, require_characters


def to_conversation(row: RawRow, form: Format, config: DataConfig | None = None) -> Conversation:
    """Read one row as `form`; RowError where a column is missing or its content does not fit.

    Args:
        config: names the columns and classes of format=labelled.
    """
    if row.fault:
        raise RowError(row.place, row.fault, f"{row.fault}. Repair or remove this row.")
    if form is Format.labelled:
        return labelled(row, config or DataConfig())
    return CONVERTERS[form](row)


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


def _alpaca(row: RawRow) -> Conversation:
    return instructed(row, "output", "alpaca")


UNREAD = ("reasoning", "reasoning_content", "thinking", "tool_calls")
"""Keys that messages from elsewhere may have beside their content."""
HUMAN, ASSISTANT = "### Human:", "### Assistant:"


def _chat(row: RawRow) -> Conversation:
    """`messages` with role and content, or `conversations` with from and value."""
    column, speaker, said = "messages", "role", "content"
    if column not in row.values and "conversations" in row.values:
        column, speaker, said = "conversations", "from", "value"
    messages = row.values.get(column)
    if not isinstance(messages, list) or not messages:
        raise RowError(
            row.place, "no list of messages",
            "format=chat needs a column messages (a list of role and content) or conversations (a "
            f"list of from and value); columns: {row.columns}. Repair the row, or choose the "
            "format that fits in data.format.",
        )  # fmt: skip
    turns = turns_of(row, column, "chat", speaker, said)
    unread = sorted(key for key in UNREAD if any(message.get(key) for message in messages))
    return replace(checked(turns, row.place), unread=tuple(unread))


def _turns(row: RawRow) -> Conversation:
    """`### Human:` and `### Assistant:` in one text. A closing question without a reply is cut."""
    text = text_column(row, "text", "turns")
    parts = re.split(rf"({HUMAN}|{ASSISTANT})", text)
    if len(parts) == 1 or parts[0].strip():
        raise RowError(
            row.place, f"does not start with {HUMAN}",
            f"format=turns needs text that starts with {HUMAN!r}, not {text[:60]!r}. Repair the "
            "row, or choose the format that fits in data.format.",
        )  # fmt: skip
    turns = [
        Turn("user" if mark == HUMAN else "assistant", said.strip())
        for mark, said in zip(parts[1::2], parts[2::2], strict=True)
    ]
    cut = len(turns) > 2 and turns[-1].role == "user"
    return checked(turns[:-1] if cut else turns, row.place, cut_question=cut)


REPLY_MARKS = (
    ("[/INST]", "</s>"),
    ("<|im_start|>assistant\n", "<|im_end|>"),
    ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    ("<start_of_turn>model\n", "<end_of_turn>"),
    ("### Response:", None),
)
"""Marks that open and close a reply in known templates; None closes at the end of the text."""


def _rendered(row: RawRow) -> Conversation:
    """Text that stands in a model's template already: replies between known marks are trained."""
    text = text_column(row, "text", "rendered")
    marks = next((marks for marks in REPLY_MARKS if marks[0] in text), None)
    if marks is None:
        known = ", ".join(repr(opening) for opening, _ in REPLY_MARKS)
        raise RowError(
            row.place, "no mark that opens a reply",
            f"no mark that opens a completion in {text[:60]!r}. format=rendered knows {known}. For "
            "raw text choose another data.format.",
        )  # fmt: skip
    segments, turns = [], []
    for between, reply in _cut(text, *marks):
        if not reply.strip().removesuffix(marks[1] or "").strip():
            raise RowError(
                row.place, "an empty reply",
                f"the completion after {marks[0]!r} is empty, so there is nothing to train on. "
                "Fill in or remove this row.",
            )  # fmt: skip
        segments += [Segment(between, False), Segment(reply, True)]
        turns += [Turn("user", between.strip()), Turn("assistant", reply.strip())]
    return Conversation(tuple(turns), rendered=tuple(segments), place=row.place)


def _text(row: RawRow) -> Conversation:
    """A text that is trained on, and scored, whole."""
    text = text_column(row, "text", "text")
    turns = (Turn("assistant", text),)
    return Conversation(turns, rendered=(Segment(text, True),), place=row.place)


def _cut(text: str, opening: str, closing: str | None) -> list[tuple[str, str]]:
    """(text up to and with the opening mark, reply with the closing mark) for each reply.

    What follows the last reply without opening another (a line break, a question) is left out.
    """
    pairs, start = [], 0
    while (found := text.find(opening, start)) >= 0:
        begin = found + len(opening)
        end = text.find(closing, begin) if closing else -1
        end = end + len(closing or "") if end >= 0 else len(text)
        pairs.append((text[start:begin], text[begin:end]))
        start = end
    return pairs


CONVERTERS: dict[Format, Callable[[RawRow], Conversation]] = {
    Format.prompt_completion: _prompt_completion,
    Format.question_answer: _question_answer,
    Format.source_target: _source_target,
    Format.alpaca: _alpaca,
    Format.chat: _chat,
    Format.turns: _turns,
    Format.rendered: _rendered,
    Format.text: _text,
    **PAIR_CONVERTERS,
}
