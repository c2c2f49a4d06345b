"""From config to files and card: counts against counts by hand, refusals with their remedies."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data_samples import NO_SHARED, PROVENANCE, SHARED, letter_tokenizer, word_tokenizer
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from lorascope.config import Config, DataConfig, DataKind, Format, ModelConfig, ModelKind, Scoring
from lorascope.config import TemplateKind as Kind
from lorascope.data.prepare import check_source, prepare_data
from lorascope.data.rows import read_rows
from lorascope.data.scoring import find_answer
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError, DataError, RecordError
from lorascope.layout import Layout
from lorascope.records import BaseRecord, DataCard
from lorascope.stages import prepare_data as stage
from lorascope.store import read_record, write_record

LONG = 200


def write_splits(root: Path, **splits: list[dict[str, Any]]) -> DataConfig:
    """One .jsonl a split, and the config that names them."""
    for split, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return DataConfig(name="x", **{split: f"{split}.jsonl" for split in splits})  # type: ignore[arg-type]


def small(root: Path) -> DataConfig:
    """Three train rows (one twice, one too long), one validation row, one test row."""
    rows = [
        {"prompt": "ab", "completion": "c"},
        {"prompt": "ab", "completion": "c"},
        {"prompt": "def", "completion": "gh"},
        {"prompt": "long", "completion": "i" * LONG},
    ]
    config = write_splits(
        root,
        train=rows,
        validation=[{"prompt": "v", "completion": "1"}],
        test=[{"prompt": "t", "completion": "2"}],
    )
    return replace(config, max_tokens=LONG)


def prepare(
    config: DataConfig, root: Path, tokenizer: PreTrainedTokenizerFast, context: int = 4096
) -> DataCard:
    folder = root / "out"
    folder.mkdir(exist_ok=True)
    return prepare_data(config, "letters", tokenizer, context, folder, root, PROVENANCE)


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
        test=[{"prompt": "a", "completion": "b"}],
    )
    card = prepare(config, tmp_path, word_tokenizer("a", "b"))
    # a b <unk> </s>
    assert card.splits["train"].unknown_token_share == 0.25
    (warning,) = card.warnings
    assert "train: 25.0% of the tokens are unknown" in warning
    assert warning in capsys.readouterr().err


def test_end_token_that_is_never_learnt_stops_everything(tmp_path: Path) -> None:
    # `single_word` keeps the tokenizer from finding its end token right behind a letter.
    tokenizer = letter_tokenizer(eos=AddedToken("<end>", single_word=True, special=True))
    with pytest.raises(DataError, match=r"0\.0% end with a trained end-of-text.*eos_token"):
        prepare(small(tmp_path), tmp_path, tokenizer)


def test_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match=r"Slow is a slow tokenizer.*tokenizer\.json"):
        prepare(small(tmp_path), tmp_path, Slow())  # type: ignore[arg-type]


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


def project(root: Path, data: DataConfig) -> tuple[Config, Layout]:
    """A project whose base is a tokenizer and a record."""
    layout, config = Layout(root), Config(model=ModelConfig(name="letters", path="x"), data=data)
    letter_tokenizer().save_pretrained(layout.base("letters"))
    record = BaseRecord(
        model="letters", source="test", architecture="none", parameters=1, vocabulary=261,
        context_tokens=64, tied_head=False, linear_shapes=[], content_sha256="", seconds=0.0,
        pretraining=None, provenance=PROVENANCE,
    )  # fmt: skip
    write_record(layout.base("letters"), record)
    return config, layout


def test_stage_writes_rows_and_record_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, layout = project(tmp_path, small(tmp_path))
    card = stage.run(config, layout)
    folder = layout.data("letters", "x")
    assert sorted(path.name for path in folder.iterdir()) == [
        "record.json", "test.jsonl", "train.jsonl", "validation.jsonl",
    ]  # fmt: skip
    assert read_record(folder, DataCard) == card
    assert (card.max_tokens, card.splits["train"].rows) == (64, 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "x for letters: 2 train, 1 validation, 1 test (6 rows read)"
    assert len(lines) == 3


def test_stage_that_fails_leaves_the_old_folder_alone(tmp_path: Path) -> None:
    config, layout = project(tmp_path, small(tmp_path))
    stage.run(config, layout)
    before = (layout.data("letters", "x") / "record.json").read_bytes()
    (tmp_path / "train.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="line 1"):
        stage.run(config, layout)
    folder = layout.data("letters", "x")
    assert (folder / "record.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["letters"]


def test_stage_without_a_base_says_what_to_run(tmp_path: Path) -> None:
    config = Config(model=ModelConfig(name="letters"), data=small(tmp_path))
    with pytest.raises(RecordError, match="Run the stage"):
        stage.run(config, Layout(tmp_path))


def test_stage_refuses_people_that_contradict_the_base(tmp_path: Path) -> None:
    model = ModelConfig(name="tiny", kind=ModelKind.tiny, pretrain_seed=0)
    data = DataConfig(name="biographies", kind=DataKind.biographies, seed=1)
    with pytest.raises(ConfigError, match=r"data\.seed=1.*pretrain_seed=0.*same seed"):
        stage.run(Config(model=model, data=data), Layout(tmp_path))


def test_biographies_are_fully_known_to_their_tokenizer(tmp_path: Path) -> None:
    from lorascope.pretraining import build_tiny_tokenizer

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
        answer_pattern=GSM8K, train="raw/gsm8k/train.jsonl", test="raw/gsm8k/test.jsonl", **caps,
    )  # fmt: skip
    card = prepare(gsm8k, tmp_path, tokenizer, context=512)
    assert card.rows_read == 7473 + 1319
    # TinyStories knows no '=', '+', '*', '#': the letters of arithmetic.
    assert any("train:" in warning and "unknown" in warning for warning in card.warnings)
