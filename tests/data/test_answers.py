"""What counts as right, and what the early check says of rows and settings that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.config import Format, Scoring
from lorascope.config import TemplateKind as Kind
from lorascope.data.answers import find_answer
from lorascope.data.prepare import check_source
from lorascope.data.rows import read_rows
from lorascope.errors import ConfigError, DataError
from tests.data.samples import letter_tokenizer, prepare, small, write_splits

GSM8K = r"####\s*(-?[0-9.,]+)"


def test_answer_is_the_patterns_group_in_the_completion(tmp_path: Path) -> None:
    def row(q: str) -> dict[str, str]:
        return {"question": q, "answer": "1000 + 1\n#### 1,001"}

    config = replace(
        write_splits(tmp_path, train=[row("a")], validation=[row("b")], test=[row("c")]),
        format=Format.question_answer, scoring=Scoring.answer, answer_pattern=GSM8K,
    )  # fmt: skip
    prepare(config, tmp_path, letter_tokenizer())
    assert read_rows(tmp_path / "out" / "test.jsonl")[0].answer == "1,001"
    assert find_answer(GSM8K, "so ####  -5 and #### 6") == "-5"
    assert find_answer(GSM8K, "none") is None


def test_answer_without_a_pattern_is_the_completion(tmp_path: Path) -> None:
    prepare(replace(small(tmp_path), scoring=Scoring.answer), tmp_path, letter_tokenizer())
    assert read_rows(tmp_path / "out" / "test.jsonl")[0].answer == "2"


@pytest.mark.parametrize(
    ("changes", "error", "parts"),
    [
        ({"scoring": Scoring.choices}, DataError, ["line 1", "no choices", "data.scoring=loss"]),
        (
            {"scoring": Scoring.answer, "answer_pattern": "#(.)"},
            DataError,
            ["line 1", "data.answer_pattern='#(.)'", "finds no answer"],
        ),
        ({"answer_pattern": "(a)"}, ConfigError, ["data.answer_pattern", "data.scoring=answer"]),
        (
            {"scoring": Scoring.answer, "answer_pattern": "(a"},
            ConfigError,
            ["data.answer_pattern='(a'", "not a regular expression"],
        ),
        (
            {"scoring": Scoring.answer, "answer_pattern": "(a)(b)"},
            ConfigError,
            ["2 groups", "exactly one"],
        ),
        (
            {"format": Format.rendered, "template": Kind.llama2},
            ConfigError,
            ["data.template='llama2'", "already"],
        ),
        ({"format": Format.rendered, "system": "s"}, ConfigError, ["data.system='s'"]),
        ({"format": Format.alpaca}, DataError, ["train.jsonl, line 1", "no column 'instruction'"]),
        ({"test": "gone.jsonl"}, DataError, ["data.test='gone.jsonl'"]),
    ],
)
def test_check_source_finds_bad_rows_and_settings_without_a_tokenizer(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], parts: list[str]
) -> None:
    config = small(tmp_path)
    assert check_source(config, tmp_path).rows_read == 6
    with pytest.raises(error) as raised:
        check_source(replace(config, **changes), tmp_path)
    for part in parts:
        assert part in str(raised.value)
