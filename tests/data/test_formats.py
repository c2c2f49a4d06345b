"""Each format's reading of a row, and its refusal of rows that do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from lorascope.config import Format
from lorascope.data.conversations import Conversation
from lorascope.data.files import RawRow
from lorascope.data.formats import to_conversation
from lorascope.data.rows import Segment
from lorascope.errors import DataError


def read(form: Format, **values: Any) -> Conversation:
    return to_conversation(RawRow(values, "rows.jsonl, line 7"), form)


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in conversation.turns]


def test_prompt_completion_keeps_texts_choices_and_answer() -> None:
    row = read(
        Format.prompt_completion,
        prompt="Capital?", completion=" Rome", choices=["Rome", "Bern"], answer="Rome",
    )  # fmt: skip
    assert said(row) == [("user", "Capital?"), ("assistant", " Rome")]
    assert (row.choices, row.answer, row.plain) == (("Rome", "Bern"), "Rome", "Capital?")


def test_alpaca_with_input_uses_the_long_wording() -> None:
    row = read(Format.alpaca, instruction="Add.", input="1 2", output="3")
    assert said(row) == [("user", "Add.\n\n1 2"), ("assistant", "3")]
    assert row.plain == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"
    )


@pytest.mark.parametrize("extra", [{}, {"input": ""}, {"input": None}])
def test_alpaca_without_input_uses_the_short_wording(extra: dict[str, Any]) -> None:
    row = read(Format.alpaca, instruction="Sing {la}.", output="La", **extra)
    assert row.plain == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nSing {la}.\n\n### Response:\n"
    )


def test_chat_reads_both_layouts_alike() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
    shared = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"},
    ]
    expected = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")]
    assert said(read(Format.chat, messages=messages)) == expected
    assert said(read(Format.chat, conversations=shared)) == expected


def test_turns_split_at_marks_only() -> None:
    text = "### Human: a\n### Title\nb### Assistant: c\n### Human: d### Assistant: e"
    row = read(Format.turns, text=text)
    assert said(row) == [
        ("user", "a\n### Title\nb"), ("assistant", "c"), ("user", "d"), ("assistant", "e"),
    ]  # fmt: skip
    assert not row.cut_question


def test_turns_cut_a_closing_question_and_say_so() -> None:
    row = read(Format.turns, text="### Human: a### Assistant: b### Human: thanks")
    assert said(row) == [("user", "a"), ("assistant", "b")]
    assert row.cut_question


def test_source_target_strips_both_sides() -> None:
    row = read(Format.source_target, text="name : X | area : Y||X is in Y . ")
    assert said(row) == [("user", "name : X | area : Y"), ("assistant", "X is in Y .")]
    assert row.plain == "name : X | area : Y ||"


def test_question_answer_has_lm_evals_wording() -> None:
    row = read(Format.question_answer, question="1 + 1?", answer="It is 2.\n#### 2")
    assert row.plain == "Question: 1 + 1?\nAnswer:"
    assert row.completion == "It is 2.\n#### 2"


def test_rendered_llama2_marks_every_reply() -> None:
    text = "<s>[INST] a [/INST] b </s><s>[INST] c [/INST] d </s>"
    assert read(Format.rendered, text=text).rendered == (
        Segment("<s>[INST] a [/INST]", False),
        Segment(" b </s>", True),
        Segment("<s>[INST] c [/INST]", False),
        Segment(" d </s>", True),
    )


def test_rendered_chatml_and_open_ended_text_are_understood() -> None:
    chatml = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    assert read(Format.rendered, text=chatml).rendered == (
        Segment("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", False),
        Segment("b<|im_end|>", True),
    )
    alpaca = "### Instruction:\na\n\n### Response:\nb"
    assert read(Format.rendered, text=alpaca).rendered == (
        Segment("### Instruction:\na\n\n### Response:", False),
        Segment("\nb", True),
    )


USER = {"role": "user", "content": "a"}
REPLY = {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("form", "values", "parts"),
    [
        ("prompt_completion", {"prompt": "a"}, ["no column 'completion'", "data.format"]),
        (
            "prompt_completion",
            {"prompt": "a", "completion": " "},
            ["completion is empty", "train on"],
        ),
        ("prompt_completion", {"prompt": "", "completion": "b"}, ["prompt is empty"]),
        ("prompt_completion", {"prompt": 3, "completion": "b"}, ["prompt=3", "int", "text"]),
        (
            "prompt_completion",
            {"prompt": "a", "completion": "b", "choices": ["b", "c"], "answer": "d"},
            ["answer='d'", "['b', 'c']", "exactly as"],
        ),
        (
            "prompt_completion",
            {"prompt": "a", "completion": "b", "choices": ["b", "c"]},
            ["answer=None", "none of choices"],
        ),
        (
            "prompt_completion",
            {"prompt": "a", "completion": "b", "choices": "b or c", "answer": "b"},
            ["choices='b or c'", "list of two or more"],
        ),
        (
            "prompt_completion",
            {"prompt": "a", "completion": "b", "choices": ["b", "b"], "answer": "b"},
            ["different"],
        ),
        (
            "prompt_completion",
            {"prompt": "a", "completion": "7", "answer": 7},
            ["answer=7", "quotes"],
        ),
        ("alpaca", {"instruction": "a", "output": ""}, ["output is empty"]),
        ("alpaca", {"prompt": "a"}, ["no column 'instruction'", "columns: prompt"]),
        ("chat", {"text": "a"}, ["format=chat", "messages", "columns: text"]),
        ("chat", {"messages": []}, ["format=chat"]),
        ("chat", {"messages": [USER]}, ["without an assistant's reply"]),
        ("chat", {"messages": [USER, USER, REPLY]}, ["turn 2", "assistant must speak"]),
        ("chat", {"messages": [REPLY]}, ["turn 1", "user must speak"]),
        (
            "chat",
            {"messages": [{"role": "bot", "content": "a"}]},
            ["messages[1]", "'bot'", "Known"],
        ),
        ("chat", {"messages": [{"role": "user"}]}, ["messages[1]", "'content'"]),
        (
            "chat",
            {"messages": [USER, {"role": "assistant", "content": ""}]},
            ["messages[2]", "content is empty"],
        ),
        ("turns", {"text": "Hello"}, ["### Human:", "'Hello'"]),
        ("turns", {"text": "### Human: a### Assistant: "}, ["turn 2 (assistant) is empty"]),
        ("turns", {"text": "### Human: a"}, ["without an assistant's reply"]),
        ("source_target", {"text": "a|b"}, ["0 separators", "'a|b'"]),
        ("source_target", {"text": "a||b||c"}, ["2 separators"]),
        ("source_target", {"text": "a|| "}, ["target", "empty"]),
        ("question_answer", {"question": "a", "answer": "\n"}, ["answer is empty"]),
        ("rendered", {"text": "Once upon"}, ["no mark", "[/INST]", "'Once upon'"]),
        (
            "rendered",
            {"text": "<s>[INST] a [/INST]  </s>"},
            ["completion after '[/INST]' is empty"],
        ),
    ],
)
def test_row_that_does_not_fit_names_place_fault_and_remedy(
    form: str, values: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(DataError) as error:
        read(Format(form), **values)
    for part in ("rows.jsonl, line 7", *parts):
        assert part in str(error.value)


def test_a_text_is_trained_whole_and_only_equal_texts_have_one_opening() -> None:
    row, other = read(Format.text, text="Once upon a time."), read(Format.text, text="Once more.")
    assert row.rendered == (Segment("Once upon a time.", True),)
    assert row.opening != other.opening
    assert row.opening == read(Format.text, text="Once upon a time.").opening
