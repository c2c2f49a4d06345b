"""A question that no row asks has the prompt that a row with it would have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lorascope.config import DataConfig, Format, TemplateKind
from lorascope.data.conversations import Turn
from lorascope.data.files import RawRow
from lorascope.data.formats import CONVERTERS, to_conversation
from lorascope.data.questions import ASKING, asked_row, remembers
from lorascope.data.templates import Template
from lorascope.errors import ConfigError

Q, A = "Why is 3 odd?", "It is so, by two."
ROWS: Mapping[Format, dict[str, Any]] = {
    Format.prompt_completion: {"prompt": Q, "completion": A},
    Format.question_answer: {"question": Q, "answer": A},
    Format.source_target: {"text": f"{Q} || {A}"},
    Format.alpaca: {"instruction": Q, "input": "", "output": A},
    Format.chat: {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
    Format.turns: {"text": f"### Human: {Q} ### Assistant: {A}"},
    Format.pairs: {"prompt": Q, "chosen": A, "rejected": "No."},
    Format.alpaca_pairs: {"instruction": Q, "chosen": A, "rejected": "No."},
    Format.chat_pairs: {
        "prompt": Q,
        "chosen": [{"role": "assistant", "content": A}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
}
LLAMA2 = Template(TemplateKind.llama2, "Be brief.", "<s>", "</s>")
PLAIN = Template(TemplateKind.plain, "Be brief.", "<s>", "</s>")


def prompt_of(values: dict[str, Any], form: Format, template: Template) -> str:
    segments = template.render(to_conversation(RawRow(values, "row"), form))
    return "".join(segment.text for segment in segments[:-1])


@pytest.mark.parametrize("template", [PLAIN, LLAMA2], ids=["plain", "llama2"])
@pytest.mark.parametrize("form", ROWS)
def test_prompt_is_that_of_a_row_with_the_question(form: Format, template: Template) -> None:
    row = asked_row(Q, DataConfig(format=form), template)
    assert row.prompt == prompt_of(ROWS[form], form, template)
    assert Q in row.prompt


def test_every_format_of_the_house_is_asked_or_refused() -> None:
    assert {*ROWS, Format.rendered} == ASKING.keys()
    for form in CONVERTERS.keys() - ASKING.keys():
        with pytest.raises(ConfigError, match="no prompt"):
            asked_row(Q, DataConfig(format=form), PLAIN)


def test_former_turns_stand_before_the_question_where_the_data_has_turns() -> None:
    messages = [
        {"role": role, "content": text}
        for role, text in (("user", "Hi."), ("assistant", "Yes?"), ("user", Q), ("assistant", A))
    ]
    config, spoken = (
        DataConfig(format=Format.chat),
        [Turn("user", "Hi."), Turn("assistant", "Yes?")],
    )
    for template in (PLAIN, LLAMA2):
        row = asked_row(Q, config, template, spoken)
        assert row.prompt == prompt_of({"messages": messages}, Format.chat, template)
        assert remembers(config, template)
    # What has a wording of its own for one question has none for two.
    worded = DataConfig(format=Format.alpaca)
    assert not remembers(worded, PLAIN)
    assert remembers(worded, LLAMA2)


def test_a_rendered_question_must_open_its_reply_and_a_blank_one_is_refused() -> None:
    rendered = DataConfig(format=Format.rendered)
    bare = Template(TemplateKind.plain, None, "<s>", "</s>")
    assert asked_row("<s>[INST] Who? [/INST]", rendered, bare).prompt == "<s>[INST] Who? [/INST]"
    with pytest.raises(ConfigError, match="does not end with a mark that opens a reply"):
        asked_row("<s>[INST] Who? [/INST] I", rendered, bare)
    with pytest.raises(ConfigError, match="nothing is asked"):
        asked_row(" \n", DataConfig(), bare)
