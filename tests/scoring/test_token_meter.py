"""Tokens a second: counted as by hand, and what a million of them cost."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from lorascope.comparing.findings import compare
from lorascope.comparing.token_prices import money_a_million
from lorascope.config import DecideConfig, Scoring
from lorascope.records import Study, Throughput
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.pages.in_short import in_short
from lorascope.reporting.tables.token_prices import batches, token_price_table
from lorascope.scoring.score import score_rows
from lorascope.scoring.token_meter import TokenMeter, written_tokens
from tests.scoring.test_evaluation import build_model, build_tokenizer, random_rows
from tests.study_factory import Trial, make_study


@pytest.mark.gpu
def test_all_tokens_are_counted_that_scoring_reads_and_writes() -> None:
    tokenizer, model, rows = build_tokenizer(), build_model(), random_rows(12)
    meter, started = TokenMeter(), time.perf_counter()
    items = score_rows(model, tokenizer, rows, Scoring.answer, None, 4, 5, meter=meter)
    took, found = time.perf_counter() - started, meter.throughput()
    lengths = [
        len(tokenizer(row.prompt + row.completion, add_special_tokens=False)["input_ids"])
        for row in rows
    ]
    # The last token of a completion predicts nothing, and is not read.
    assert found.read_tokens == sum(lengths) - len(rows)
    assert len(rows) <= found.written_tokens <= 5 * len(rows)
    assert 0 < found.read_seconds + found.written_seconds < took
    without = score_rows(model, tokenizer, rows, Scoring.answer, None, 4, 5)
    assert without == items


def test_only_the_drawing_of_batches_is_timed() -> None:
    meter = TokenMeter()
    for _ in meter.drawn(9, iter("ab")):
        time.sleep(0.02)
    assert meter.throughput().read_tokens == 9
    assert meter.throughput().read_seconds < 0.02


def test_batch_and_device_are_of_the_scores_that_were_timed() -> None:
    timed = Throughput(2000, 1.0, 0, 0.0)
    study = priced(timed)
    own = [
        replace(e, batch_size=2 + n, throughput=timed if n % 2 else None)
        for n, e in enumerate(study.evaluations)
    ]
    prices = compare(replace(study, evaluations=own)).token_prices
    measured = [set(price.batch_sizes) for price in prices if price.batch_sizes]
    assert set.union(*measured) == {e.batch_size for e in own if e.throughput}
    assert (batches(()), batches((8,)), batches((1, 2, 8))) == (None, "8", "1 to 8")


def test_what_stands_behind_an_end_was_not_written() -> None:
    assert written_tokens([[5, 2, 0, 0], [5, 6, 7, 8], [2, 2, 2, 2]], {2}) == 2 + 4 + 1


def test_a_million_tokens_at_a_thousand_a_second_take_a_thousand_seconds() -> None:
    assert money_a_million(1000, 3.6) == pytest.approx(1.0)
    assert money_a_million(None, 3.6) is None
    assert money_a_million(1000, None) is None


def priced(timed: Throughput | None, **rule: Any) -> Study:
    """Two modes of two seeds, all with the same speed."""
    study = make_study([Trial(q, seed=s, accuracy=0.8) for q in ("fp16", "nf4") for s in (0, 1)])
    evaluations = [replace(e, throughput=timed) for e in study.evaluations]
    return replace(study, evaluations=evaluations, decide=DecideConfig("default", **rule))


def test_measured_tokens_have_a_price_beside_the_hosted_one() -> None:
    timed = Throughput(2000, 1.0, 100, 4.0)
    study = priced(timed, price_per_hour=1.8, hosted={"other": [0.25, 2.0]})
    findings = compare(study)
    shown = token_price_table(findings).plain().splitlines()
    assert len(shown) == 1 + 2 + 2 + 1
    # 1.8 an hour is 0.0005 a second: 500 seconds a million read, 40,000 a million written.
    assert all("2,000" in line and "25" in line for line in shown[1:5])
    assert all("0.25" in line and " 20 " in line for line in shown[1:5])
    assert shown[-1].split()[:2] == ["hosted:", "other"]
    assert {"0.25", "2"} <= set(shown[-1].split())
    (told,) = dict(in_short(findings, CellNames.of(findings)))["Tokens"]
    assert isinstance(told, str)
    assert told.startswith(
        "2,000 read a second, a million for 0.25; 25 written a second, a million for 20; on "
    )
    assert told.endswith("; other asks 0.25 and 2.")


def test_what_was_not_measured_is_said_so_and_not_guessed() -> None:
    findings = compare(priced(None, price_per_hour=1.8))
    assert all(price.read_money is None for price in findings.token_prices)
    lines = token_price_table(findings).plain().splitlines()[1:]
    assert all(line.count("not measured") == 2 for line in lines)
    assert not compare(priced(None)).token_prices
    only_read = compare(priced(Throughput(2000, 1.0, 0, 0.0))).token_prices
    assert {price.written_per_second for price in only_read} == {None}
