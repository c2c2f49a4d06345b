"""Rendering against texts written out by hand, and the labels that follow from it."""

from __future__ import annotations

import pytest
from data_samples import CHATML, NO_SHARED, SHARED, letter_tokenizer, word_tokenizer

from lorascope.config import DataConfig, Format, Scoring, TemplateKind
from lorascope.data.conversations import Conversation, Turn
from lorascope.data.formats import to_conversation
from lorascope.data.prepare import prepare_row
from lorascope.data.rows import PreparedRow, Segment
from lorascope.data.sources import RawRow
from lorascope.data.templates import make_template
from lorascope.data.tokenization import (
    IGNORED_LABEL,
    load_tokenizer,
    tokenize_row,
    tokenizer_sha256,
)
from lorascope.errors import ConfigError, DataError

TWO_TURNS = Conversation(
    (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
)


def prepared(
    conversation: Conversation,
    kind: TemplateKind = TemplateKind.plain,
    system: str | None = None,
    eos: str = "</s>",
    bos: bool = True,
) -> PreparedRow:
    tokenizer = letter_tokenizer(bos, eos, CHATML if kind is TemplateKind.chat else None)
    config = DataConfig(name="x", template=kind)
    return prepare_row(conversation, make_template(kind, system, tokenizer), config)


def pair(prompt: str, completion: str) -> Conversation:
    row = RawRow({"prompt": prompt, "completion": completion}, "here")
    return to_conversation(row, Format.prompt_completion)


def trained(row: PreparedRow) -> list[str]:
    return [segment.text for segment in row.segments if segment.trained]


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


def test_chat_template_that_rewrites_history_is_refused() -> None:
    rewriting = (
        "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }}|"
        "{% endif %}{% endfor %}"
    )
    template = make_template(TemplateKind.chat, None, letter_tokenizer(chat_template=rewriting))
    with pytest.raises(DataError, match=r"rewrites earlier turns.*plain or llama2"):
        template.render(TWO_TURNS)


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
    with pytest.raises(DataError, match="no end-of-text token.*tokenizer_config"):
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


@pytest.mark.parametrize("kind", list(TemplateKind))
def test_labels_are_the_completions_and_their_end_tokens(kind: TemplateKind) -> None:
    tokenizer = letter_tokenizer()
    row = prepared(TWO_TURNS, kind)
    ids, labels = tokenize_row(row, tokenizer)
    assert tokenizer.decode(ids) == row.text
    assert tokenizer.decode([i for i in labels if i != IGNORED_LABEL]) == "".join(trained(row))
    assert all(label in (IGNORED_LABEL, i) for i, label in zip(ids, labels, strict=True))
    assert labels[-1] == tokenizer.eos_token_id


def test_train_on_prompt_trains_every_token() -> None:
    ids, labels = tokenize_row(prepared(TWO_TURNS), letter_tokenizer(), train_on_prompt=True)
    assert ids == labels


def test_prompt_alone_is_a_prefix_of_the_sample() -> None:
    tokenizer, row = letter_tokenizer(), prepared(TWO_TURNS, TemplateKind.llama2)
    ids, labels = tokenize_row(row, tokenizer)
    prompt = tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
    assert ids[: len(prompt)] == prompt
    assert ids[len(prompt) :] == labels[len(prompt) :]


def test_choices_are_rendered_like_completions_without_end() -> None:
    values = {"prompt": "Capital?", "completion": "Rome", "choices": ["Rome", "Bern"]}
    conversation = to_conversation(
        RawRow({**values, "answer": "Rome"}, "here"), Format.prompt_completion
    )
    for kind, first in ((TemplateKind.plain, " Rome"), (TemplateKind.llama2, " Rome")):
        config = DataConfig(name="x", template=kind, scoring=Scoring.choices)
        row = prepare_row(conversation, make_template(kind, None, letter_tokenizer()), config)
        assert (row.choices, row.answer) == ([first, " Bern"], first)


def test_tokenizer_digest_ignores_switches_that_calls_leave_behind() -> None:
    tokenizer = word_tokenizer("a", "b")
    before = tokenizer_sha256(tokenizer)
    tokenizer(["a b a b"], truncation=True, max_length=2, padding="do_not_pad")
    assert tokenizer_sha256(tokenizer) == before
    assert tokenizer_sha256(word_tokenizer("a", "c")) != before


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_unknown_characters_keep_a_token_and_true_offsets_in_tinystories() -> None:
    tokenizer = load_tokenizer(SHARED / "models" / "tinystories-656k")
    encoded = tokenizer("a = é b", add_special_tokens=False, return_offsets_mapping=True)
    assert list(encoded["input_ids"]).count(tokenizer.unk_token_id) == 2
    assert encoded["offset_mapping"][-1] == (6, 7)


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_trained_tokens_are_those_that_lm_eval_scores_in_tinystories() -> None:
    tokenizer = load_tokenizer(SHARED / "models" / "tinystories-656k")
    template = make_template(TemplateKind.plain, None, tokenizer)
    lines = (SHARED / "data" / "e2e-nlg" / "valid.txt").read_text(encoding="utf-8").splitlines()
    for line in lines[::100]:
        conversation = to_conversation(RawRow({"text": line}, "here"), Format.source_target)
        row = prepare_row(conversation, template, DataConfig(name="x"))
        _, labels = tokenize_row(row, tokenizer)
        prompt = tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
        whole = tokenizer(row.prompt + row.completion, add_special_tokens=False)["input_ids"]
        assert [i for i in labels if i != IGNORED_LABEL] == whole[len(prompt) :]
        assert row.prompt.startswith("<|start_story|>name")
