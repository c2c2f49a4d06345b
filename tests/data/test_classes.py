"""Rows with classes: what they become, and which are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.config import Config, DataConfig, Format, ModelConfig, Scoring, Storage, TrainConfig
from lorascope.config.rules import require_one_task, validate
from lorascope.data.classes import labelled, tokenize_texts
from lorascope.data.files import RawRow
from lorascope.data.unfit_rows import RowError
from lorascope.errors import ConfigError
from tests.class_bases import CLASSES, class_rows, make_tokenizer
from tests.data.samples import prepare, write_splits

DATA = DataConfig(
    "toy", format=Format.labelled, scoring=Scoring.classes, classes=CLASSES, train="rows.csv"
)
MODEL = ModelConfig("mine", path="here", classes=2)
TRAIN = TrainConfig("few", steps=1, objective="classification")


@pytest.mark.parametrize("label", ["positive", 1, "1", " positive "])
def test_a_class_is_its_name_or_its_number(label: object) -> None:
    row = labelled(RawRow({"text": "good film", "label": label}, "line 1"), DATA)
    assert (row.answer, row.choices) == ("positive", ("negative", "positive"))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"text": "good"}, "no column label"),
        ({"text": "good", "label": None}, "label is no class"),
        ({"text": "good", "label": 2}, "label is no class"),
        ({"text": "good", "label": -1}, "label is no class"),
        ({"text": "good", "label": True}, "label is no class"),
        ({"text": " ", "label": 1}, "text is empty"),
        ({"sentence": "good", "label": 1}, "no column text"),
    ],
)
def test_a_row_without_text_or_class_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as error:
        labelled(RawRow(values, "line 1"), DATA)
    assert error.value.reason == reason


def test_two_texts_get_the_tokenizers_own_frame_and_types() -> None:
    tokenizer, (row,) = make_tokenizer("bert"), class_rows(1, second=True)
    (text,) = tokenize_texts([row], tokenizer)
    plain = tokenizer(*(segment.text for segment in row.segments))
    assert (text.ids, text.types) == (plain["input_ids"], plain["token_type_ids"])
    assert text.label == 1
    assert set(text.types or ()) == {0, 1}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": replace(MODEL, classes=3)}, "model.classes=3: the base has a head for another"),
        ({"model": replace(MODEL, classes=None)}, "train.objective='classification': it needs a"),
        ({"train": replace(TRAIN, objective="completion")}, "Set train.objective=classification"),
        ({"train": replace(TRAIN, qat=Storage.int4_sym)}, "train.qat"),
        ({"data": replace(DATA, format=Format.chat, scoring=Scoring.loss)}, "it learns classes"),
    ],
)
def test_what_does_not_go_with_a_head_for_classes_is_refused(
    changed: dict[str, Any], words: str
) -> None:
    config = replace(Config(model=MODEL, data=DATA, train=TRAIN), **changed)
    require_one_task(Config(model=MODEL, data=DATA, train=TRAIN))
    with pytest.raises(ConfigError) as error:
        require_one_task(config)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"classes": ["good"]}, "two or more different names"),
        ({"classes": ["good", "good"]}, "two or more different names"),
        ({"scoring": Scoring.loss}, "data.format=labelled and data.scoring=classes go together"),
        ({"template": "chat"}, "are read as they are"),
        ({"system": "Judge."}, "are read as they are"),
    ],
)
def test_settings_of_rows_with_classes_are_judged(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        validate(Config(model=MODEL, data=replace(DATA, **changed), train=TRAIN))


def test_the_card_warns_of_classes_that_a_split_hardly_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(*counts: int, start: int = 0) -> list[dict[str, Any]]:
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        return [{"text": f"film {start + n} good", "label": own} for n, own in enumerate(labels)]

    write_splits(
        tmp_path, train=rows(12, 3), validation=rows(10, 10, start=20), test=rows(11, start=50)
    )
    train, validation, test = (f"{split}.jsonl" for split in ("train", "validation", "test"))
    data = replace(DATA, train=train, validation=validation, test=test)
    card = prepare(data, tmp_path, make_tokenizer("bert"))
    assert [split.class_rows for split in card.splits.values()] == [
        {"negative": 12, "positive": 3}, {"negative": 10, "positive": 10},
        {"negative": 11, "positive": 0},
    ]  # fmt: skip
    few, none = [warning for warning in card.warnings if "class" in warning]
    assert few.startswith("train: classes with fewer than 10 rows (rows by class: positive: 3)")
    assert none.startswith("test: no row is of class 'positive', so that no score shows")
    assert none in capsys.readouterr().err
