"""Chat templates of other families, in own wording: today's date, thinking parts, history that is
written otherwise, end tokens behind the last turn only."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import pytest
import transformers.utils.chat_template_utils as chat_template_utils
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from lorascope.config import DataConfig, Format, Scoring, TemplateKind
from lorascope.data.answers import is_right
from lorascope.data.conversations import Conversation, Turn
from lorascope.data.prepare import prepare_row
from lorascope.data.rows import PreparedRow, read_rows
from lorascope.data.templates import make_template
from lorascope.data.tokenization import tokenize_row
from lorascope.data.unfit_rows import RowError
from lorascope.errors import ConfigError, DataError
from tests.data.samples import TWO_TURNS, letter_tokenizer, prepare, trained, write_splits

CHAT = TemplateKind.chat
DATED = (
    "{{ bos_token }}[{{ strftime_now('%d %b %Y, %H:%M') if strftime_now is defined else '-' }}]"
    "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
THINKING = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% set said = m.content.split('</think>')[-1].lstrip() %}"
    "{% if loop.index0 > ns.last %}<think>\n{{ m.content.split('</think>')[0].split('<think>')[-1]"
    " if '</think>' in m.content else '' }}\n</think>\n\n{% endif %}{{ said }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""After Qwen3: an empty thinking part before the last reply, none before those that are past."""
R1 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:"
    "{{ m.content.split('</think>')[-1] }}{{ '<|im_end|>' if m.role == 'assistant' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant:<think>\n{% endif %}"
)
"""After DeepSeek-R1: inference opens a thinking part that the replies of data do not have."""
CHANNELS = (
    "{% for m in messages %}<s>{{ m.role }}{{ '<|im_start|>final' if m.role == 'assistant' }}"
    "<unk>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant{% endif %}"
)
"""After gpt-oss: special tokens before a reply, of which a generation shows none when read."""


def tokenizer_of(chat_template: str, eos: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    tokenizer = letter_tokenizer(bos=False, eos=eos, chat_template=chat_template)
    tokenizer.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
    return tokenizer


def rendered(
    conversation: Conversation, chat_template: str, eos: str = "<|im_end|>", **settings: object
) -> PreparedRow:
    tokenizer = tokenizer_of(chat_template, eos)
    config = replace(DataConfig(name="x", template=CHAT), **settings)  # type: ignore[arg-type]
    return prepare_row(conversation, make_template(CHAT, None, tokenizer, config.date), config)


def asked(reply: str, answer: str | None = None) -> Conversation:
    return Conversation((Turn("user", "a"), Turn("assistant", reply)), answer=answer)


def as_generated(row: PreparedRow, tokenizer: PreTrainedTokenizerFast) -> str:
    """The trained completion as lm-eval reads a generation: token ids decoded, special ones
    skipped."""
    _, labels = tokenize_row(row, tokenizer)
    return str(tokenizer.decode([i for i in labels if i >= 0], skip_special_tokens=True))


class Tomorrow(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Tomorrow:
        return cls(2031, 5, 6, 7, 8)


def test_a_template_that_asks_for_today_gets_the_date_of_the_config(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    today = rendered(asked("b"), DATED)
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    assert rendered(asked("b"), DATED) == today
    assert today.prompt.startswith("<s>[26 Jul 2024, 00:00]")
    other = rendered(asked("b"), DATED, date="2031-01-02")
    assert other.prompt.startswith("<s>[02 Jan 2031, 00:00]")


def test_the_date_is_recorded_and_part_of_the_digest_where_a_template_asks_for_it() -> None:
    days = ("2024-07-26", "2031-01-02")
    dated = [make_template(CHAT, None, tokenizer_of(DATED), day) for day in days]
    assert [template.chat and template.chat.date for template in dated] == list(days)
    assert dated[0].sha256 != dated[1].sha256
    undated = [make_template(CHAT, None, tokenizer_of(PHI3), day) for day in days]
    assert [template.chat and template.chat.date for template in undated] == [None, None]
    assert undated[0].sha256 == undated[1].sha256


def test_an_end_token_behind_the_last_turn_only_hides_no_reply() -> None:
    row = rendered(TWO_TURNS, PHI3, eos="</s>")
    whole = tokenizer_of(PHI3, "</s>").apply_chat_template(
        [{"role": t.role, "content": t.content} for t in TWO_TURNS.turns], tokenize=False
    )
    assert row.text == str(whole).rstrip()
    assert trained(row) == ["\nb<|im_end|>", "\nd<|im_end|>\n</s>"]


def test_replies_written_otherwise_as_history_are_read_and_the_last_one_is_trained() -> None:
    row = rendered(TWO_TURNS, THINKING)
    assert row.text == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc"
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nd<|im_end|>"
    )
    assert trained(row) == ["\n<think>\n\n</think>\n\nd<|im_end|>"]


def test_history_that_is_left_out_is_no_obstacle_but_a_reply_that_cannot_be_found_is() -> None:
    last_only = (
        "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }}|"
        "{% endif %}{% endfor %}"
    )
    row = rendered(TWO_TURNS, last_only)
    assert (row.text, trained(row)) == ("a|c|d|<|im_end|>", ["d|<|im_end|>"])
    counting = "{{ messages | length }}" + last_only
    with pytest.raises(RowError, match=r"rewrites earlier turns.*plain or llama2"):
        rendered(TWO_TURNS, counting)


@pytest.mark.parametrize("chat_template", [THINKING, CHANNELS, PHI3, R1])
@pytest.mark.parametrize("answer", [None, "b"])
def test_a_generation_equal_to_the_trained_completion_is_right(
    chat_template: str, answer: str | None
) -> None:
    row = rendered(asked("b", answer), chat_template, scoring=Scoring.answer)
    assert row.answer
    assert is_right(as_generated(row, tokenizer_of(chat_template)), row.answer, None)
    assert not is_right("b, or c", row.answer, None)


def test_a_pattern_finds_the_same_in_the_row_and_in_the_generation() -> None:
    pattern = r"(?s)^(.*)$"
    row = rendered(
        asked("<think>x</think>b"), THINKING, scoring=Scoring.answer, answer_pattern=pattern
    )
    assert row.answer == "<think>\nx\n</think>\n\nb"
    assert is_right(as_generated(row, tokenizer_of(THINKING)), row.answer, pattern)
    with pytest.raises(RowError, match=r"here: data.answer_pattern='\^\(b\)' finds no answer in"):
        rendered(
            replace(asked("b"), place="here"), THINKING,
            scoring=Scoring.answer, answer_pattern="^(b)",
        )  # fmt: skip


def test_a_rendered_reply_is_scored_without_its_closing_mark() -> None:
    from lorascope.data.files import RawRow
    from lorascope.data.formats import to_conversation

    values: dict[str, object] = {"text": "<s>[INST] a [/INST] b </s>"}
    conversation = to_conversation(RawRow(values, "here"), Format.rendered)
    config = DataConfig(name="x", format=Format.rendered, scoring=Scoring.answer)
    template = make_template(TemplateKind.plain, None, letter_tokenizer())
    assert prepare_row(conversation, template, config).answer == "b"


def test_an_opening_that_only_inference_writes_is_cut_and_warned_of(tmp_path: Path) -> None:
    row = rendered(asked("<b"), R1)
    assert (row.prompt, row.completion) == (
        "<|im_start|>user:a<|im_start|>assistant:", "<b<|im_end|>",
    )  # fmt: skip
    config = replace(
        write_splits(tmp_path, **{s: [{"prompt": s, "completion": "b"}] for s in SPLITS}),
        template=CHAT,
    )
    card = prepare(config, tmp_path, tokenizer_of(R1))
    (warning,) = card.warnings
    assert "opens a reply with '<think>'" in warning


SPLITS = ("train", "validation", "test")


def test_replies_that_are_only_read_are_counted_in_the_card(tmp_path: Path) -> None:
    def rows(split: str) -> list[dict[str, object]]:
        turns = [("user", split), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
        return [{"messages": [{"role": role, "content": said} for role, said in turns]}]

    config = replace(
        write_splits(tmp_path, **{split: rows(split) for split in SPLITS}),
        format=Format.chat, template=CHAT,
    )  # fmt: skip
    assert "3 replies before" in prepare(config, tmp_path, tokenizer_of(THINKING)).warnings[0]
    assert prepare(config, tmp_path, tokenizer_of(PHI3)).warnings == []


def test_what_messages_say_beside_their_content_is_counted_as_not_read(tmp_path: Path) -> None:
    def rows(split: str, **extra: object) -> list[dict[str, object]]:
        reply = {"role": "assistant", "content": "b", **extra}
        return [{"messages": [{"role": "user", "content": split}, reply]}]

    config = replace(
        write_splits(
            tmp_path, train=rows("a", reasoning_content="x", name="n"),
            validation=rows("v", tool_calls=[]), test=rows("t", reasoning_content=None),
        ),
        format=Format.chat, template=CHAT,
    )  # fmt: skip
    (warning,) = prepare(config, tmp_path, tokenizer_of(PHI3)).warnings
    assert "(rows by key: reasoning_content: 1)" in warning


def test_special_tokens_in_a_users_text_are_counted_with_a_place(tmp_path: Path) -> None:
    rows = [
        {"prompt": "cut <s>price</s>", "completion": "ok<|im_end|>"},
        {"prompt": "q", "completion": "<s>x</s>"},
        {"prompt": "p", "completion": "plain"},
    ]
    config = replace(
        write_splits(tmp_path, train=rows, validation=[{"prompt": "v", "completion": "1"}],
                     test=[{"prompt": "t", "completion": "2"}]),
        template=CHAT,
    )  # fmt: skip
    card = prepare(config, tmp_path, tokenizer_of(PHI3))
    assert card.special_tokens_in_text == {"<s>": 2, "</s>": 2}
    assert "<s>: 2" in card.warnings[0]
    assert "train.jsonl, line" in card.warnings[0]
    texts = [row.text for row in read_rows(tmp_path / "out" / "train.jsonl")]
    # The end token that the data's own reply brings is not doubled: three as in every other row.
    assert {text.count("<|im_end|>") for text in texts} == {3}


def test_a_start_token_behind_blanks_is_not_doubled() -> None:
    blank = "\n{{ bos_token }}{% for m in messages %}{{ m.content }}|{% endfor %}"
    tokenizer = letter_tokenizer(bos=True, eos="<|im_end|>", chat_template=blank)
    template = make_template(CHAT, None, tokenizer)
    text = "".join(segment.text for segment in template.render(asked("b")))
    assert text.count("<s>") == 1


@pytest.mark.parametrize("broken", ["{% for m in %}", "{{ messages[0].content + 1 }}"])
def test_a_template_that_cannot_run_is_named_without_a_stack(tmp_path: Path, broken: str) -> None:
    config = write_splits(tmp_path, **{s: [{"prompt": s, "completion": "b"}] for s in SPLITS})
    with pytest.raises((ConfigError, DataError), match="chat template"):
        prepare(replace(config, template=CHAT), tmp_path, tokenizer_of(broken))


def test_several_templates_without_a_default_say_what_to_use() -> None:
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = {"rag": PHI3, "tool_use": PHI3}
    with pytest.raises(ConfigError, match=r"data\.template='chat'.*plain or llama2"):
        make_template(CHAT, None, tokenizer)
    tokenizer.chat_template = {"default": PHI3, "rag": DATED}
    named = make_template(CHAT, None, tokenizer)
    assert named.chat is not None
    assert json.loads(named.chat.source)["default"] == PHI3
