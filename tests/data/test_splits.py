"""Splits: nothing in two of them, the same whatever the order, duplicates counted."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorascope.config import DataConfig
from lorascope.data.conversations import Conversation, Turn
from lorascope.data.splits import Splits, split_conversations
from lorascope.errors import DataError

CONFIG = DataConfig(name="x", validation_fraction=0.3, test_fraction=0.3)
MANY = [f"filler {i}" for i in range(60)]
"""Enough questions that no split is empty."""


def row(question: str, reply: str, *more: str, place: str = "") -> Conversation:
    turns = [Turn("user", question), Turn("assistant", reply)]
    for number, said in enumerate(more):
        turns.append(Turn("user" if number % 2 == 0 else "assistant", said))
    return Conversation(tuple(turns), place=place)


def items(splits: Splits) -> dict[str, list[str]]:
    return {split: [c.item for c in rows] for split, rows in splits.conversations.items()}


pairs = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), max_size=40)


@settings(max_examples=60, deadline=None)
@given(pairs=pairs, seed=st.integers(0, 5))
def test_no_question_stands_in_two_splits_and_all_rows_are_accounted_for(
    pairs: list[tuple[str, str]], seed: int
) -> None:
    rows = [row(q, "filler") for q in MANY] + [row(q, r) for q, r in pairs]
    config = DataConfig(name="x", validation_fraction=0.3, test_fraction=0.3, seed=seed)
    splits = split_conversations({"train": rows}, config)
    openings = [{c.opening for c in part} for part in splits.conversations.values()]
    assert sum(map(len, openings)) == len(set.union(*openings))
    kept = sum(len(part) for part in splits.conversations.values())
    assert kept == len({c.item for c in rows})
    assert kept + sum(splits.dropped.values()) == len(rows)


@settings(max_examples=60, deadline=None)
@given(pairs=pairs, order=st.integers(0, 1000))
def test_splits_do_not_depend_on_the_order_of_rows(
    pairs: list[tuple[str, str]], order: int
) -> None:
    rows = [row(q, "filler") for q in MANY] + [row(q, r) for q, r in pairs]
    shuffled = random.Random(order).sample(rows, len(rows))
    first = split_conversations({"train": rows}, CONFIG)
    second = split_conversations({"train": shuffled}, CONFIG)
    assert items(first) == items(second)
    assert first.dropped == second.dropped


def test_more_rows_move_no_row_to_another_split() -> None:
    before = items(split_conversations({"train": [row(q, "r") for q in MANY]}, CONFIG))
    more = [row(q, "r") for q in (*MANY, *(f"new {i}" for i in range(30)))]
    after = items(split_conversations({"train": more}, CONFIG))
    assert all(set(before[split]) <= set(after[split]) for split in before)


def test_shares_are_about_as_asked() -> None:
    rows = [row(f"q{i}", "r") for i in range(2000)]
    splits = split_conversations({"train": rows}, DataConfig(name="x"))
    shares = {split: len(part) / 2000 for split, part in splits.conversations.items()}
    assert shares["validation"] == pytest.approx(0.1, abs=0.02)
    assert shares["test"] == pytest.approx(0.1, abs=0.02)


def test_named_test_split_wins_over_validation_and_train() -> None:
    sources = {
        "train": [row("a", "1"), row("b", "2"), row("c", "3"), row("c", "3"), row("d", "4")],
        "validation": [row("b", "5"), row("e", "6")],
        "test": [row("a", "1"), row("e", "7")],
    }
    splits = split_conversations(sources, CONFIG)
    said = {
        split: sorted((c.turns[0].content, c.completion) for c in part)
        for split, part in splits.conversations.items()
    }
    assert said == {
        "train": [("c", "3"), ("d", "4")],
        "validation": [("b", "5")],
        "test": [("a", "1"), ("e", "7")],
    }
    assert splits.dropped == {
        "duplicate": 2,
        "question of train also in validation": 1,
        "question of validation also in test": 1,
    }


def test_a_conversation_and_its_continuation_stay_together() -> None:
    rows = [row(q, "r") for q in MANY] + [row(q, "r", "go on", "s") for q in MANY]
    for part in split_conversations({"train": rows}, CONFIG).conversations.values():
        openings = [c.opening for c in part]
        assert all(openings.count(opening) == 2 for opening in openings)


def test_empty_split_names_it_counts_questions_and_gives_the_remedy() -> None:
    same = [row("a", str(i)) for i in range(50)]
    config = DataConfig(name="x", validation_fraction=0.001, test_fraction=0.001)
    with pytest.raises(DataError) as error:
        split_conversations({"train": same}, config)
    remedy = "raise data.validation_fraction=0.001, or name a file in data.validation"
    for part in ("validation split is empty", "1 different questions", remedy):
        assert part in str(error.value)


def test_train_that_is_all_in_test_says_so() -> None:
    rows = [row(q, "r") for q in MANY]
    sources = {"train": rows, "validation": [row("v", "r")], "test": rows}
    with pytest.raises(DataError, match=r"train split is empty.*duplicate: 60.*data\.train"):
        split_conversations(sources, CONFIG)
