"""Preference pairs: three layouts of one pair, what is dropped, and the card's length bias."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.config import DataConfig, Format, Scoring
from lorascope.data.files import RawRow
from lorascope.data.formats import to_conversation
from lorascope.data.rows import PreparedRow, Segment, read_rows, write_rows
from tests.data.samples import letter_tokenizer, prepare, write_splits

ASKED = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}


def reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("pairs", {"prompt": "Hi", "chosen": "Good day", "rejected": "What"}),
        ("alpaca_pairs", {"instruction": "Hi", "chosen": "Good day", "rejected": "What"}),
        ("chat_pairs", {"chosen": [ASKED, reply("Good day")], "rejected": [ASKED, reply("What")]}),
        ("chat_pairs", {"prompt": "Hi", "chosen": [reply("Good day")],
                        "rejected": [reply("What")]}),
        ("chat_pairs", {"prompt": [ASKED], "chosen": [reply("Good day")],
                        "rejected": [reply("What")]}),
    ],
)  # fmt: skip
def test_each_layout_gives_the_same_pair(form: str, values: dict[str, Any]) -> None:
    row = to_conversation(RawRow(values, "rows.jsonl, line 1"), Format(form))
    assert [(turn.role, turn.content) for turn in row.turns] == [
        ("user", "Hi"), ("assistant", "Good day"),
    ]  # fmt: skip
    assert row.rejected == "What"
    assert row.with_rejected.completion == "What"


def test_turns_before_the_replies_are_read_and_pairs_of_one_question_are_several_items() -> None:
    start = [SYSTEM, ASKED, reply("Hello"), ASKED]
    first, second = (
        to_conversation(
            RawRow({"chosen": [*start, reply("a")], "rejected": [*start, reply(bad)]}, "here"),
            Format.chat_pairs,
        )
        for bad in "bc"
    )
    assert len(first.turns) == 5
    assert first.opening == second.opening
    assert first.item != second.item


def pair(number: int, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": f"q{number}", "chosen": chosen, "rejected": rejected}


def prepared(root: Path, train: list[dict[str, str]]) -> tuple[DataConfig, Any]:
    held_out = [pair(100, "yes", "no"), pair(101, "no", "yes")]
    write_splits(root, train=train, validation=held_out[:1], test=held_out[1:])
    config = DataConfig(
        name="x", format=Format.pairs, train="train.jsonl", validation="validation.jsonl",
        test="test.jsonl", max_tokens=40, scoring=Scoring.preference,
    )  # fmt: skip
    return config, prepare(config, root, letter_tokenizer())


def test_the_card_counts_both_replies_and_tells_length_bias(tmp_path: Path) -> None:
    rows = [pair(i, "long", "no") for i in range(3)]
    rows += [pair(3, "no", "long"), pair(4, "same", " same "), pair(5, "x", "y" * 60)]
    _, card = prepared(tmp_path, rows)
    train = card.splits["train"]
    # <s>q0, ' long' and </s> = 3 + 5 + 1 tokens; <s>q0, ' no' and </s> = 3 + 3 + 1.
    assert (train.rows, train.tokens, train.trained_tokens) == (4, 4 * (9 + 7), 4 * (6 + 4))
    assert train.most_trained_tokens == 6
    assert (train.chosen_longer_share, train.chosen_more_tokens) == (0.75, 1.0)
    assert (train.rows, train.prompts) == (4, 4)
    assert (train.chance_accuracy, card.splits["test"].chance_accuracy) == (0.5, 0.5)
    assert card.dropped_rows == {"chosen and rejected are equal": 1, "longer than 40 tokens": 1}
    (warning,) = card.warnings
    assert "more tokens than the rejected one in 75% of the pairs, +1.0 on average" in warning
    (row,) = read_rows(tmp_path / "out/test.jsonl")
    assert row.rejected is not None
    assert (row.completion, row.rejected, row.prompt) == (" no</s>", " yes</s>", "<s>q101")
    assert row.with_rejected.text == "<s>q101 yes</s>"


def test_replies_of_one_length_are_no_bias(tmp_path: Path) -> None:
    _, card = prepared(tmp_path, [pair(i, "yes!", "nope") for i in range(4)])
    train = card.splits["train"]
    assert (train.chosen_longer_share, train.rejected_longer_share) == (0.0, 0.0)
    assert not card.warnings


def test_rows_without_pairs_are_written_as_before(tmp_path: Path) -> None:
    row = PreparedRow("a", [Segment("x", True)], "x", "y")
    write_rows(tmp_path / "rows.jsonl", [row])
    assert "rejected" not in (tmp_path / "rows.jsonl").read_text()
    assert read_rows(tmp_path / "rows.jsonl") == [row]
    paired = replace(row, rejected="z")
    write_rows(tmp_path / "rows.jsonl", [paired])
    assert read_rows(tmp_path / "rows.jsonl") == [paired]
