"""Rendering against texts written out by hand."""

from __future__ import annotations

import pytest

from lorascope.config import DataConfig, Format, Scoring, TemplateKind
from lorascope.data.conversations import Conversation, Turn
from lorascope.data.files import RawRow
from lorascope.data.formats import to_conversation
from lorascope.data.prepare import prepare_row
from lorascope.data.rows import Segment
from lorascope.data.templates import make_template
from lorascope.errors import ConfigError, DataError
from tests.data.samples import CHATML, TWO_TURNS, letter_tokenizer, prepared, trained


def pair(prompt: str, completion: str) -> Conversation:
    row = RawRow({"prompt": prompt, "completion": completion}, "here")
    return to_conversation(row, Format.prompt_completion)


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("Ada is", "5"), ("Ada is ", "5"), ("Ada is", " 5"), ("Ada is", "5\n")],
)
def test_plain_blank_between_prompt_and_completion_belongs_to_completion(
    prompt: str, completion: str
) -> None:
    row = prepared(pair(prompt, completion))
    assert (row.prompt, row.completion) == ("<s>Ada is", " 5</s>")
    assert row.segments == [Segment("<s>Ada is", False), Segment(" 5</s>", True)]


def test_plain_without_a_start_token_of_the_tokenizer_adds_none() -> None:
    assert prepared(pair("Q:", "5"), bos=False).text == "Q: 5</s>"


def test_plain_end_token_in_the_data_is_not_doubled() -> None:
    assert prepared(pair("Q:", "5</s>")).text == "<s>Q: 5</s>"


def test_plain_system_message_leads() -> None:
    assert prepared(pair("Q:", "5"), system="Be brief.").text == "<s>Be brief.\n\nQ: 5</s>"


def test_plain_several_turns_are_cued_and_each_reply_ends() -> None:
    row = prepared(TWO_TURNS)
    first = "<s>### Human: a\n### Assistant: b</s>"
    assert row.text == first + "\n### Human: c\n### Assistant: d</s>"
    assert trained(row) == [" b</s>", " d</s>"]
    assert row.prompt == first + "\n### Human: c\n### Assistant:"
    assert row.completion == " d</s>"


def test_llama2_with_system_has_the_published_text() -> None:
    row = prepared(pair("Hi", "Hello"), TemplateKind.llama2, system="Be kind.")
    assert row.text == "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello </s>"
    assert (trained(row), row.prompt[-7:]) == ([" Hello </s>"], "[/INST]")


def test_llama2_several_turns_repeat_start_and_end() -> None:
    row = prepared(TWO_TURNS, TemplateKind.llama2)
    assert row.text == "<s>[INST] a [/INST] b </s><s>[INST] c [/INST] d </s>"
    assert trained(row) == [" b </s>", " d </s>"]


def test_own_system_message_is_not_replaced() -> None:
    own = Conversation((Turn("system", "Own."), *TWO_TURNS.turns))
    assert "Own." in prepared(own, TemplateKind.llama2, system="Given.").text
    assert "Given." not in prepared(own, TemplateKind.llama2, system="Given.").text


def test_chat_template_is_cut_at_its_replies() -> None:
    row = prepared(TWO_TURNS, TemplateKind.chat, eos="<|im_end|>", bos=False)
    assert row.text == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>"
    )
    assert trained(row) == ["\nb<|im_end|>", "\nd<|im_end|>"]
    assert row.prompt.endswith("<|im_start|>assistant")


def test_chat_template_with_another_end_token_gets_it_once() -> None:
    row = prepared(pair("a", "b"), TemplateKind.chat)
    assert row.text == ("<s><|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|></s>")


def test_chat_without_a_chat_template_names_key_and_remedy() -> None:
    with pytest.raises(ConfigError, match=r"data\.template='chat'.*no chat template.*plain"):
        make_template(TemplateKind.chat, None, letter_tokenizer())


def test_chat_template_that_refuses_a_system_message_is_named() -> None:
    refusing = "{{ raise_exception('System role not supported') }}"
    template = make_template(TemplateKind.chat, "s", letter_tokenizer(chat_template=refusing))
    with pytest.raises(DataError, match=r"System role not supported.*data\.system"):
        template.render(TWO_TURNS)


def test_rendered_llama2_gets_this_tokenizers_tokens() -> None:
    text = "<s>[INST] a [/INST] b </s><s>[INST] c [/INST] d </s>"
    conversation = to_conversation(RawRow({"text": text}, "here"), Format.rendered)
    same = prepared(conversation)
    assert (same.text, trained(same)) == (text, [" b </s>", " d </s>"])
    other = prepared(conversation, eos="<|im_end|>", bos=False)
    assert other.text == "[INST] a [/INST] b <|im_end|>[INST] c [/INST] d <|im_end|>"


def test_tokenizer_without_end_token_is_refused() -> None:
    tokenizer = letter_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match=r"no end-of-text token.*tokenizer_config"):
        make_template(TemplateKind.plain, None, tokenizer)


def test_digest_changes_with_each_thing_that_decides_the_text() -> None:
    plain = make_template(TemplateKind.plain, None, letter_tokenizer())
    others = [
        make_template(TemplateKind.llama2, None, letter_tokenizer()),
        make_template(TemplateKind.plain, "s", letter_tokenizer()),
        make_template(TemplateKind.plain, None, letter_tokenizer(bos=False)),
        make_template(TemplateKind.plain, None, letter_tokenizer(eos="<|im_end|>")),
        make_template(TemplateKind.chat, None, letter_tokenizer(chat_template=CHATML)),
        make_template(TemplateKind.chat, None, letter_tokenizer(chat_template=CHATML + " ")),
    ]
    assert len({template.sha256 for template in (plain, *others)}) == 7
    assert plain.sha256 == make_template(TemplateKind.plain, None, letter_tokenizer()).sha256


def test_choices_are_rendered_like_completions_without_end() -> None:
    values = {"prompt": "Capital?", "completion": "Rome", "choices": ["Rome", "Bern"]}
    conversation = to_conversation(
        RawRow({**values, "answer": "Rome"}, "here"), Format.prompt_completion
    )
    for kind, first in ((TemplateKind.plain, " Rome"), (TemplateKind.llama2, " Rome")):
        config = DataConfig(name="x", template=kind, scoring=Scoring.choices)
        row = prepare_row(conversation, make_template(kind, None, letter_tokenizer()), config)
        assert (row.choices, row.answer) == ([first, " Bern"], first)


def test_a_whole_text_begins_after_the_start_token() -> None:
    conversation = to_conversation(RawRow({"text": "So it was."}, "here"), Format.text)
    row = prepare_row(
        conversation,
        make_template(TemplateKind.plain, None, letter_tokenizer(), "2024-07-26"),
        DataConfig(name="x", format=Format.text),
    )
    assert (row.prompt, row.completion) == ("<s>", "So it was.</s>")
    assert row.segments == [Segment("<s>", False), Segment("So it was.</s>", True)]
