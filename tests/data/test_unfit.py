"""Rows that cannot be trained on are left out, counted and listed, up to the declared share; more
are an error that shows ten of them. `check` and prepare-data judge alike."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.config import Config, DataConfig, Format, Scoring, TemplateKind
from lorascope.config.rules import validate
from lorascope.data.prepare import check_source
from lorascope.data.rows import read_rows
from lorascope.data.unfit_rows import RowError
from lorascope.errors import ConfigError, DataError
from tests.data.samples import CHATML, letter_tokenizer, prepare, write_splits

GOOD = 40
HALF = "\ud800"
"""json.dumps writes it as an escape, and json.loads reads it back."""


def pairs(count: int, name: str = "q") -> list[dict[str, Any]]:
    return [{"prompt": f"{name}{i}", "completion": "r"} for i in range(count)]


def with_train(root: Path, rows: list[Any], **settings: Any) -> DataConfig:
    config = write_splits(root, train=rows, validation=pairs(1, "v"), test=pairs(1, "t"))
    return replace(config, **settings)


def alike(config: DataConfig, root: Path) -> str:
    """What both commands say of too many unfit rows."""
    with pytest.raises(DataError) as checked:
        check_source(config, root)
    with pytest.raises(DataError) as prepared:
        prepare(config, root, letter_tokenizer())
    assert str(checked.value) == str(prepared.value)
    return str(checked.value)


ODD_PAIRS: list[tuple[Any, str]] = [
    ({"prompt": "a", "completion": ""}, "completion is empty"),
    ({"prompt": "a", "completion": " \n"}, "completion is empty"),
    ({"prompt": "a", "completion": None}, "completion is empty"),
    ({"prompt": "a"}, "no column completion"),
    ({"prompt": ["a"], "completion": "b"}, "prompt is not text"),
    ({"prompt": "a", "completion": float("nan")}, "completion is not text"),
    ({"prompt": f"a{HALF}", "completion": "b"}, "half of a surrogate pair"),
    ({"prompt": "a", "completion": "b", "answer": HALF}, "half of a surrogate pair"),
    ({"prompt": "a", "completion": "b", "answer": 7}, "answer is not text"),
    ({"prompt": "a", "completion": "b", "answer": " "}, "answer is empty"),
    ({"prompt": "a", "completion": "</s>"}, "no reply but the end-of-text token"),
    (["a", "b"], "a list, where a JSON object with named columns belongs"),
    (None, "a NoneType, where a JSON object with named columns belongs"),
]


@pytest.mark.parametrize(("odd", "reason"), ODD_PAIRS)
def test_one_odd_row_is_left_out_counted_listed_and_warned_of(
    tmp_path: Path, odd: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_train(tmp_path, [*pairs(GOOD), odd])
    card = prepare(config, tmp_path, letter_tokenizer())
    assert card.splits["train"].rows == GOOD
    assert (card.rows_read, card.dropped_rows) == (GOOD + 3, {reason: 1})
    assert card.unfit_rows == {reason: [f"train.jsonl, line {GOOD + 1}"]}
    (warning,) = card.warnings
    assert f"train: 1 of {GOOD + 1} rows cannot be trained on" in warning
    assert warning in capsys.readouterr().err


def chat(*said: str) -> dict[str, Any]:
    roles = ("user", "assistant") * len(said)
    return {"messages": [{"role": r, "content": s} for r, s in zip(roles, said, strict=False)]}


def both(chosen: dict[str, Any], rejected: dict[str, Any]) -> dict[str, Any]:
    return {"chosen": chosen.get("messages"), "rejected": rejected.get("messages")}


REPEATED = chat("a", "b")
REPEATED["messages"].insert(0, {"role": "user", "content": "a"})
ODD_OF_FORMAT: list[tuple[Format, dict[str, Any], dict[str, Any], str]] = [
    (Format.alpaca, {"instruction": "a{}", "output": "b"}, {"instruction": "a", "output": ""},
     "output is empty"),
    (Format.alpaca, {"instruction": "a{}", "output": "b"},
     {"instruction": "a", "input": HALF, "output": "b"}, "half of a surrogate pair"),
    (Format.chat, chat("a{}", "b"), chat("a", ""), "content is empty"),
    (Format.chat, chat("a{}", "b"), chat("a", "b" + HALF), "half of a surrogate pair"),
    (Format.chat, chat("a{}", "b"), REPEATED, "turns that do not alternate"),
    (Format.chat, chat("a{}", "b"), {"messages": None}, "no list of messages"),
    (Format.turns, {"text": "### Human: a{}### Assistant: b"},
     {"text": "### Human: a### Assistant: "}, "an empty turn"),
    (Format.question_answer, {"question": "a{}", "answer": "b"}, {"question": "a", "answer": None},
     "answer is empty"),
    (Format.rendered, {"text": "<s>[INST] a{} [/INST] b </s>"}, {"text": "<s>[INST] a [/INST]</s>"},
     "an empty reply"),
    (Format.source_target, {"text": "a{} || b"}, {"text": "a b"}, "not one separator ||"),
    (Format.text, {"text": "a{}"}, {"text": " "}, "text is empty"),
    (Format.prompt_completion, {"prompt": "a{}", "completion": "b"},
     {"prompt": " ", "completion": "b"}, "prompt is empty"),
    (Format.pairs, {"prompt": "a{}", "chosen": "b", "rejected": "c"},
     {"prompt": "a", "chosen": "b"}, "no column rejected"),
    (Format.alpaca_pairs, {"instruction": "a{}", "chosen": "b", "rejected": "c"},
     {"instruction": "a", "chosen": "b", "rejected": " "}, "rejected is empty"),
    (Format.chat_pairs, both(chat("a{}", "b"), chat("a{}", "c")),
     both(chat("a", "b"), chat("d", "c")), "chosen and rejected reply to different turns"),
    (Format.chat_pairs, both(chat("a{}", "b"), chat("a{}", "c")), both(chat("a", "b"), {}),
     "rejected is no list of messages"),
]  # fmt: skip


def test_every_format_has_an_odd_row() -> None:
    # Rows with classes are judged by settings of their own: tests/data/test_classes.py.
    assert {form for form, *_ in ODD_OF_FORMAT} == set(Format) - {Format.labelled}


@pytest.mark.parametrize(("form", "good", "odd", "reason"), ODD_OF_FORMAT)
def test_every_format_leaves_its_odd_row_out(
    tmp_path: Path, form: Format, good: dict[str, Any], odd: dict[str, Any], reason: str
) -> None:
    rows = [json.loads(json.dumps(good).replace("{}", str(i))) for i in range(GOOD)]
    write_splits(tmp_path, train=[*rows, odd])
    config = DataConfig(name="x", format=form, train="train.jsonl")
    config = replace(config, validation_fraction=0.3, test_fraction=0.3)
    card = prepare(config, tmp_path, letter_tokenizer())
    assert card.dropped_rows == {reason: 1}
    assert sum(split.rows for split in card.splits.values()) == GOOD


@pytest.mark.parametrize(("unfit", "told"), [(2, None), (3, "3 of 40 rows")])
def test_the_declared_share_is_the_limit_in_both_commands(
    tmp_path: Path, unfit: int, told: str | None
) -> None:
    empty = [{"prompt": f"e{i}", "completion": ""} for i in range(unfit)]
    config = with_train(tmp_path, [*pairs(40 - unfit), *empty])
    if told is None:
        assert check_source(config, tmp_path).unfit.counts() == {"completion is empty": unfit}
        assert prepare(config, tmp_path, letter_tokenizer()).splits["train"].rows == 40 - unfit
    else:
        message = alike(config, tmp_path)
        assert told in message
        assert "data.max_dropped_fraction=0.05 lets 2 be left out" in message


def test_too_many_show_ten_with_line_and_reason_and_count_the_rest(tmp_path: Path) -> None:
    rows = pairs(9) + [{"prompt": f"e{i}", "completion": ""} for i in range(11)] + [{"prompt": "n"}]
    message = alike(with_train(tmp_path, rows), tmp_path)
    assert "data.train='train.jsonl': 12 of 21 rows" in message
    assert "(completion is empty: 11, no column completion: 1)" in message
    shown = [line for line in message.splitlines() if line.startswith("  train.jsonl, line ")]
    assert len(shown) == 10
    assert shown[0].startswith("  train.jsonl, line 10: completion is empty")
    assert "and 2 more" in message


def test_none_are_allowed_where_the_share_is_nought(tmp_path: Path) -> None:
    rows = [*pairs(GOOD), {"prompt": "e", "completion": ""}]
    message = alike(with_train(tmp_path, rows, max_dropped_fraction=0.0), tmp_path)
    assert "1 of 41 rows" in message


@pytest.mark.parametrize("split", ["validation", "test"])
def test_validation_and_test_files_are_held_to_the_share_by_themselves(
    tmp_path: Path, split: str
) -> None:
    rows = {"train": pairs(400), "validation": pairs(10, "v"), "test": pairs(10, "t")}
    rows[split][3] = {"prompt": "e", "completion": ""}
    message = alike(write_splits(tmp_path, **rows), tmp_path)
    assert f"data.{split}='{split}.jsonl': 1 of 10 rows" in message


def test_a_share_is_counted_as_people_count() -> None:
    from lorascope.data.unfit_rows import UnfitRows

    unfit = UnfitRows(DataConfig(name="x", max_dropped_fraction=0.29), {"train": 100})
    for number in range(29):
        unfit.add("train", RowError(f"line {number}", "empty", "is empty"))
    unfit.require_few()
    unfit.add("train", RowError("line 30", "empty", "is empty"))
    with pytest.raises(DataError, match="30 of 100 rows"):
        unfit.require_few()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_dropped_fraction", -0.1), ("max_dropped_fraction", 1.0),
        ("max_dropped_fraction", float("nan")), ("date", "26 Jul 2024"), ("date", "20240726"),
        ("date", "2024-02-30"), ("system", HALF), ("answer_pattern", f"({HALF})"), ("train", HALF),
        ("subset", HALF),
    ],
)  # fmt: skip
def test_settings_that_no_row_could_use_are_refused_by_every_command(
    key: str, value: object
) -> None:
    config = Config(data=DataConfig(name="x", train="t.jsonl"))
    config.model.name, config.model.path, config.train.epochs = "m", "p", 1
    config.quant.name = config.train.name = "q"
    validate(config)
    setattr(config.data, key, value)
    with pytest.raises(ConfigError, match=rf"data\.{key}="):
        validate(config)


def test_a_cluster_that_cannot_be_named_is_a_row_of_its_own_kind(tmp_path: Path) -> None:
    rows = [{**row, "person": "Ann"} for row in pairs(GOOD)]
    rows += [{"prompt": "n", "completion": "r"}, {"prompt": "s", "completion": "r", "person": HALF}]
    config = replace(
        with_train(tmp_path, rows), cluster="person", validation=None, test=None,
        validation_fraction=0.3, test_fraction=0.3,
    )  # fmt: skip
    card = prepare(config, tmp_path, letter_tokenizer())
    assert card.dropped_rows == {"half of a surrogate pair": 1, "no value in column person": 1}


def choices(answer: object) -> list[dict[str, Any]]:
    return [
        {"prompt": f"q{i}", "completion": "Rome", "choices": ["Rome", "Bern"], "answer": answer}
        for i in range(GOOD)
    ]


def test_the_number_of_a_choice_is_told_what_text_it_stands_for(tmp_path: Path) -> None:
    config = with_train(tmp_path, choices(1), scoring=Scoring.choices)
    message = alike(config, tmp_path)
    assert (
        "must be the text of the right choice, not its number: counted from 0, that is 'Bern'"
        in (message)
    )
    assert "quotes" not in message


def test_a_key_that_stands_twice_makes_its_row_unfit(tmp_path: Path) -> None:
    config = with_train(tmp_path, pairs(GOOD))
    with (tmp_path / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"prompt": "p", "completion": "x", "completion": "y"}\n')
    card = prepare(config, tmp_path, letter_tokenizer())
    assert card.dropped_rows == {"key 'completion' stands twice in one object": 1}


def refusing(text: str) -> str:
    return f"{{% if messages[0].content == '{text}' %}}{{{{ raise_exception('no') }}}}{{% endif %}}"


def test_a_row_that_the_chat_template_refuses_is_left_out_too(tmp_path: Path) -> None:
    tokenizer = letter_tokenizer(chat_template=refusing("q3") + CHATML)
    config = with_train(tmp_path, pairs(GOOD), template=TemplateKind.chat)
    card = prepare(config, tmp_path, tokenizer)
    assert card.dropped_rows == {"refused by the chat template": 1}
    assert card.splits["train"].rows == GOOD - 1
    prompts = [row.prompt for row in read_rows(tmp_path / "out" / "train.jsonl")]
    assert not any("q3<" in prompt for prompt in prompts)


def test_a_template_that_refuses_all_stops_at_ten_rows(tmp_path: Path) -> None:
    tokenizer = letter_tokenizer(chat_template="{{ raise_exception('not this') }}")
    config = with_train(tmp_path, pairs(GOOD), template=TemplateKind.chat)
    with pytest.raises(DataError, match=r"at least 10 of 40 rows.*") as error:
        prepare(config, tmp_path, tokenizer)
    assert str(error.value).count("not this") == 10


def test_a_row_that_is_too_long_keeps_its_own_rule(tmp_path: Path) -> None:
    rows = [*pairs(10), *({"prompt": f"l{i}", "completion": "x" * 90} for i in range(10))]
    card = prepare(with_train(tmp_path, rows, max_tokens=50), tmp_path, letter_tokenizer())
    assert card.dropped_rows == {"longer than 50 tokens": 10}
    assert card.unfit_rows == {}


def test_a_row_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RowError("r.jsonl, line 2", "empty", "is empty")))
    assert (str(error), error.reason) == ("r.jsonl, line 2: is empty", "empty")
    odd = RowError("r.jsonl, line 2", "no column x", f"columns: {HALF}")
    assert str(odd) == "r.jsonl, line 2: columns: \\ud800"
