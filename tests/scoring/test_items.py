"""A summary must equal independent statistics, and an items file must read back exactly."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lorascope.errors import DataError, RecordError
from lorascope.records import ItemResult
from lorascope.scoring.items import read_items, summarize, write_items


def make_items(correct: list[bool | None]) -> list[ItemResult]:
    return [
        ItemResult(f"i{n}", "p", "t", right, 0.1 * (n + 1), n + 1)
        for n, right in enumerate(correct)
    ]


def test_summary_equals_numpy_and_scipy() -> None:
    correct = [True, False, True, True, False, False, True]
    score = summarize(make_items(list(correct)))
    assert score.items == 7
    assert score.accuracy == pytest.approx(np.mean(correct))
    assert score.accuracy_standard_error == pytest.approx(stats.sem(correct, ddof=1))
    assert score.completion_loss_nats == pytest.approx(0.1)


def test_standard_error_is_lm_evals_own() -> None:
    from lm_eval.api.metrics import mean_stderr

    correct = [True] * 5 + [False] * 8
    score = summarize(make_items(list(correct)))
    assert score.accuracy_standard_error == pytest.approx(mean_stderr(correct))


def test_summary_of_unjudged_and_single_items() -> None:
    unjudged = summarize(make_items([None, None]))
    assert (unjudged.accuracy, unjudged.accuracy_standard_error) == (None, None)
    single = summarize(make_items([True]))
    assert (single.accuracy, single.accuracy_standard_error) == (1.0, None)


@pytest.mark.parametrize(
    ("correct", "message"), [([], "nothing to average"), ([True, None], "1 of 2 items")]
)
def test_summary_of_nothing_or_half_judged_items_is_refused(
    correct: list[bool | None], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        summarize(make_items(correct))


@pytest.mark.parametrize("text", [None, "{}\n", "no json\n", '{"item": 3}\n'])
def test_items_file_missing_or_damaged_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "items.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecordError, match=r"items\.jsonl"):
        read_items(path)


def test_items_file_keeps_every_bit_and_order(tmp_path: Path) -> None:
    items = [
        ItemResult(f"i{n}", "p", "t", right, loss, 3)
        for n, (right, loss) in enumerate([(True, 0.1 + 0.2), (False, 1e-17), (None, math.pi)])
    ]
    write_items(tmp_path / "items.jsonl", items)
    assert read_items(tmp_path / "items.jsonl") == items
    assert (tmp_path / "items.jsonl").read_text().splitlines()[0] == (
        '{"cluster": null, "correct": true, "correct_norm": null, "item": "i0", '
        '"loss_nats": 0.30000000000000004, "prompt_sha256": "p", "stock_encoding": null, '
        '"target_sha256": "t", "tokens": 3}'
    )


def test_a_whole_number_in_place_of_a_loss_is_a_loss_and_other_fields_are_left_out(
    tmp_path: Path,
) -> None:
    items = [replace(item, loss_nats=2.0 * item.tokens) for item in make_items([True, False])]
    write_items(tmp_path / "test.jsonl", items)
    text = (tmp_path / "test.jsonl").read_text()
    edited = text.replace('"loss_nats": 2.0', '"loss_nats": 2').replace("{", '{"later": [1], ')
    (tmp_path / "test.jsonl").write_text(edited + "\n")
    with pytest.raises(RecordError, match="line 3: not a scored item"):
        read_items(tmp_path / "test.jsonl")
    (tmp_path / "test.jsonl").write_text(edited)
    found = read_items(tmp_path / "test.jsonl")
    assert found == items
    assert [type(item.loss_nats) for item in found] == [float, float]
