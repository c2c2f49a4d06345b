"""From config to files and card: counts against counts by hand, refusals with their remedies."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from lorascope.config import DataConfig, DataKind, Format, Scoring
from lorascope.config import TemplateKind as Kind
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import DataError
from tests.data.samples import (
    LONG,
    NO_SHARED,
    SHARED,
    letter_tokenizer,
    prepare,
    small,
    word_tokenizer,
    write_splits,
)


def test_card_counts_what_can_be_counted_by_hand(tmp_path: Path) -> None:
    card = prepare(small(tmp_path), tmp_path, letter_tokenizer())
    # <s>ab + ' c' + </s> = 3 + 2 + 1, and <s>def + ' gh' + </s> = 4 + 3 + 1
    train = card.splits["train"]
    assert (train.rows, train.tokens, train.trained_tokens) == (2, 6 + 8, 3 + 4)
    lengths = train.length_percentiles_tokens
    assert (lengths["p0"], lengths["p100"]) == (6, 8)
    assert (train.eos_trained_share, train.unknown_token_share) == (1.0, 0.0)
    assert card.rows_read == 6
    assert card.dropped_rows == {"duplicate": 1, f"longer than {LONG} tokens": 1}
    assert card.source == "local: train=train.jsonl, validation=validation.jsonl, test=test.jsonl"
    for split, split_card in card.splits.items():
        content = (tmp_path / "out" / f"{split}.jsonl").read_bytes()
        assert hashlib.sha256(content).hexdigest() == split_card.sha256


def test_written_rows_are_what_evaluation_reads(tmp_path: Path) -> None:
    prepare(small(tmp_path), tmp_path, letter_tokenizer())
    (row,) = read_rows(tmp_path / "out" / "test.jsonl")
    assert (row.text, row.prompt, row.completion) == ("<s>t 2</s>", "<s>t", " 2</s>")
    assert (row.choices, row.answer) == (None, None)


def clustered(root: Path, *people: str | None) -> DataConfig:
    rows = [
        {"prompt": letter, "completion": "x"} | ({"person": person} if person else {})
        for letter, person in zip("abcdef", people, strict=False)
    ]
    config = write_splits(root, train=rows[:1], validation=rows[1:2], test=rows[2:])
    return replace(config, cluster="person")


def test_rows_of_one_cluster_share_a_hash_and_only_they(tmp_path: Path) -> None:
    prepare(clustered(tmp_path, "Ann", "Bob", "Cleo", "Cleo", "Dan"), tmp_path, letter_tokenizer())
    rows = {row.prompt: row.cluster for row in read_rows(tmp_path / "out" / "test.jsonl")}
    assert rows["<s>c"] == rows["<s>d"] != rows["<s>e"]
    assert None not in rows.values()


def test_a_row_without_its_cluster_names_row_key_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"test.jsonl, line 2: .*'person', which data.cluster names"
    ):
        prepare(clustered(tmp_path, "Ann", "Bob", "Cleo", None), tmp_path, letter_tokenizer())


def test_the_cluster_is_no_part_of_the_item(tmp_path: Path) -> None:
    prepare(clustered(tmp_path, "Ann", "Bob", "Cleo"), tmp_path, letter_tokenizer())
    (named,) = read_rows(tmp_path / "out" / "test.jsonl")
    prepare(
        replace(clustered(tmp_path, "Ann", "Bob", "Cleo"), cluster=None),
        tmp_path,
        letter_tokenizer(),
    )
    (plain,) = read_rows(tmp_path / "out" / "test.jsonl")
    assert named.item == plain.item
    assert plain.cluster is None


def test_too_long_counts_against_the_models_context_too(tmp_path: Path) -> None:
    card = prepare(small(tmp_path), tmp_path, letter_tokenizer(), context=7)
    assert card.max_tokens == 7
    assert card.dropped_rows["longer than 7 tokens"] == 2
    assert card.splits["train"].rows == 1


def test_split_that_is_all_too_long_names_key_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train split is empty.*5 tokens.*Raise data\.max_tokens"):
        prepare(small(tmp_path), tmp_path, letter_tokenizer(), context=5)


def test_cap_keeps_the_same_rows_every_time_and_counts_the_rest(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completion": "r"} for i in range(90)]
    config = replace(
        write_splits(tmp_path, train=rows, test=[{"prompt": "t", "completion": "r"}]),
        max_train_rows=5,
    )
    card = prepare(config, tmp_path, letter_tokenizer())
    kept = (tmp_path / "out" / "train.jsonl").read_bytes()
    write_splits(tmp_path, train=rows[::-1])
    again = prepare(config, tmp_path, letter_tokenizer())
    assert card.splits["train"].rows == 5
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == kept
    assert again.content_sha256 == card.content_sha256
    rest = 90 - 5 - card.splits["validation"].rows
    assert card.dropped_rows == {"beyond max_train_rows=5": rest}


def test_identity_changes_with_rows_and_with_what_counts_as_right(tmp_path: Path) -> None:
    config = small(tmp_path)
    cards = [
        prepare(config, tmp_path, letter_tokenizer()),
        prepare(replace(config, scoring=Scoring.answer), tmp_path, letter_tokenizer()),
        prepare(replace(config, train_on_prompt=True), tmp_path, letter_tokenizer()),
        prepare(replace(config, template=Kind.llama2), tmp_path, letter_tokenizer()),
    ]
    assert len({card.content_sha256 for card in cards}) == len(cards)
    assert cards[2].splits["train"].trained_tokens == cards[2].splits["train"].tokens


def test_unknown_tokens_are_warned_of_with_their_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_splits(
        tmp_path,
        train=[{"prompt": "a b", "completion": "zebra"}],
        validation=[{"prompt": "b", "completion": "a"}],
        test=[{"prompt": "a", "completion": "cow"}],
    )
    card = prepare(config, tmp_path, word_tokenizer("a", "b"))
    # a b <unk> </s>, and a <unk> </s>
    assert card.splits["train"].unknown_token_share == 0.25
    (warning,) = card.warnings
    assert warning.startswith("train, test: up to 33.3% of the tokens are unknown")
    assert warning in capsys.readouterr().err


def test_end_token_that_is_never_learnt_stops_everything(tmp_path: Path) -> None:
    # `single_word` keeps the tokenizer from finding its end token right behind a letter.
    tokenizer = letter_tokenizer(eos=AddedToken("<end>", single_word=True, special=True))
    with pytest.raises(
        DataError, match=r"2 of 4 rows cannot .*no trained end-of-text.*\n.*eos_token"
    ):
        prepare(small(tmp_path), tmp_path, tokenizer)


def test_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match=r"Slow is a slow tokenizer.*tokenizer\.json"):
        prepare(small(tmp_path), tmp_path, Slow())


def test_biographies_are_fully_known_to_their_tokenizer(tmp_path: Path) -> None:
    from lorascope.bases.tiny.pretraining import build_tiny_tokenizer

    config = DataConfig(
        name="biographies", kind=DataKind.biographies, scoring=Scoring.answer, max_tokens=64
    )
    card = prepare(config, tmp_path, build_tiny_tokenizer())
    assert card.warnings == []
    assert card.dropped_rows == {}
    assert all(split.unknown_token_share == 0 for split in card.splits.values())
    row = read_rows(tmp_path / "out" / "test.jsonl")[0]
    assert row.completion == f" {row.answer}<eos>"


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_real_e2e_and_gsm8k_rows_are_prepared_for_tinystories(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(SHARED / "models" / "tinystories-656k")
    (tmp_path / "raw").symlink_to(SHARED / "data")
    caps: dict[str, Any] = {"max_train_rows": 100, "max_validation_rows": 50, "max_test_rows": 50}
    e2e = DataConfig(
        name="e2e", format=Format.source_target, max_tokens=256,
        train="raw/e2e-nlg/valid.txt", test="raw/e2e-nlg/test.txt", **caps,
    )  # fmt: skip
    card = prepare(e2e, tmp_path, tokenizer, context=512)
    assert card.rows_read == 4672 + 4693
    assert {split: c.rows for split, c in card.splits.items()} == {
        "train": 100, "validation": 50, "test": 50,
    }  # fmt: skip
    assert card.warnings == []
    gsm8k = DataConfig(
        name="gsm8k", format=Format.question_answer, max_tokens=512, scoring=Scoring.answer,
        answer_pattern=r"####\s*(-?[0-9.,]+)",
        train="raw/gsm8k/train.jsonl", test="raw/gsm8k/test.jsonl", **caps,
    )  # fmt: skip
    card = prepare(gsm8k, tmp_path, tokenizer, context=512)
    assert card.rows_read == 7473 + 1319
    # TinyStories knows no '=', '+', '*', '#': the letters of arithmetic.
    assert any("train" in warning and "unknown" in warning for warning in card.warnings)
    assert any("100 of 100 answers in validation and test" in warning for warning in card.warnings)
