"""evaluate.max_new_tokens against the answers that it must leave room for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lorascope.config import Config
from lorascope.data.answers import require_room, unreadable_answers
from lorascope.data.rows import PreparedRow, Segment, read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.stages import prepare_data
from tests.data.samples import letter_tokenizer, word_tokenizer


def row(prompt: str, completion: str) -> PreparedRow:
    return PreparedRow("id", [Segment(completion, True)], prompt, completion)


def test_answers_that_all_fit_pass_in_silence() -> None:
    assert require_room([row("abc", "de")], letter_tokenizer(), 2, 8) is None


def test_many_answers_that_are_longer_are_refused_with_the_length_needed() -> None:
    rows = [row("a", "bcd")] * 10
    with pytest.raises(ConfigError, match=r"max_new_tokens=2.*10 of 10.*3 tokens.*Set it to 3, "):
        require_room(rows, letter_tokenizer(), 2, 100)


def test_the_remedy_never_asks_for_more_than_the_context_holds() -> None:
    long_prompt, long_answers = row("abcdef", "b"), [row("a", "bcdefg")] * 30
    with pytest.raises(ConfigError, match=r"leaves 4 tokens.*lower data\.max_tokens") as error:
        require_room([long_prompt, *long_answers], letter_tokenizer(), 2, 10)
    assert "Set it to" not in str(error.value)
    answers = [row("a", "bcd")] * 30
    with pytest.raises(ConfigError, match=r"Set it to 4, .*no more of the context"):
        require_room([long_prompt, *answers, long_answers[0]], letter_tokenizer(), 2, 10)


def test_answers_that_the_tokenizer_cannot_give_back_are_found() -> None:
    right = PreparedRow("id", [], "p", " a</s>", answer="a")
    lost = PreparedRow("id", [], "p", " zebra</s>", answer="zebra")
    assert unreadable_answers([right, lost], word_tokenizer("a", "b"), None) == [lost]
    assert unreadable_answers([right, lost], letter_tokenizer(), None) == []


def test_a_few_answers_that_are_longer_are_a_warning_with_their_number() -> None:
    rows = [row("a", "b")] * 99 + [row("a", "bcd")]
    assert "1 of 100" in str(require_room(rows, letter_tokenizer(), 2, 100))


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"longest prompt has 6 tokens.*Use 2 or less"):
        require_room([row("abcdef", "g")], letter_tokenizer(), 4, 8)


def test_a_long_prompt_among_long_answers_is_dropped_rather_than_the_answers() -> None:
    rows = [row("abcdef", "g"), *([row("a", "bcde")] * 9)]
    told = r"1 of 10 prompts .*Use data\.max_tokens=4, which drops"
    with pytest.raises(ConfigError, match=told):
        require_room(rows, letter_tokenizer(), 4, 8)


def test_preparing_data_that_cannot_be_answered_leaves_the_former_rows(
    project: Layout, compose: Callable[..., Config]
) -> None:
    folder = project.data("small", "toy")
    before = read_rows(folder / "test.jsonl")
    with pytest.raises(ConfigError, match="max_new_tokens=1:"):
        prepare_data.command([compose("quant=fp16", "evaluate.max_new_tokens=1")], project)
    assert read_rows(folder / "test.jsonl") == before
    assert load_tokenizer(project.base("small")).eos_token == "<eos>"
