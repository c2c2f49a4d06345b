"""What `check` knows before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from scipy.stats import norm

from lorascope.config import Config, DataConfig, Scoring
from lorascope.records import LinearShape, ModelParts
from lorascope.study.foregone import (
    judged_at_once,
    needless_ranks,
    too_few_items,
    too_few_to_settle,
)


def clusters(count: int, distinct: int) -> list[str | None]:
    return [f"c{n % distinct}" for n in range(count)]


def test_items_that_cannot_show_the_margin_are_told_before_training() -> None:
    data, margin = DataConfig(name="mine", scoring=Scoring.answer, validation_fraction=0.2), 0.05

    def told(rows: list[str | None], candidates: int = 1) -> str:
        return "".join(too_few_items(data, margin, rows, candidates))

    # Tango's interval of no changed answer ends at z^2 / (n + z^2).
    squared = float(norm.ppf(0.975)) ** 2
    fewest = next(n for n in range(1, 200) if squared / (n + squared) < margin)
    assert not told([None] * fewest)
    few = told([None] * (fewest - 1))
    assert f"{fewest - 1} validation items cannot show" in few
    assert "would still reach 5.1." in few
    assert f"It takes some {fewest} or more: {5 * fewest} rows, another " in few
    # Twenty groups of ten are worth less than 200 items.
    assert "200 validation items in 20 clusters" in told(clusters(200, 20))
    data.max_validation_rows = 20
    assert told([None] * 1000).startswith("20 validation items")
    assert f"some {fewest} or more: another max_validation_rows (conf/data/mine.yaml)" in told(
        [None] * 99
    )
    data.max_validation_rows, data.validation = None, "mine_too.jsonl"
    assert f"It takes some {fewest} or more, or a wider" in told([None] * 9)
    data.scoring = Scoring.loss
    assert not told([None] * 5)


def test_items_that_show_one_candidate_and_not_several_are_told() -> None:
    data = DataConfig(name="mine", scoring=Scoring.answer, validation_fraction=0.2)
    # Holm holds the smallest p of seven against 5 % / 7.
    squared = float(norm.ppf(1 - 0.05 / 7 / 2)) ** 2
    fewest = next(n for n in range(1, 400) if squared / (n + squared) < 0.05)
    (told,) = too_few_items(data, 0.05, [None] * (fewest - 1), 7)
    assert told.startswith(
        f"{fewest - 1} validation items are few: where 7 candidates are compared"
    )
    assert f"For 7 candidates it takes some {fewest} or more: {5 * fewest} rows" in told
    assert not list(too_few_items(data, 0.05, [None] * fewest, 7))
    # Rows with a cluster each are as many rows.
    (alike,) = too_few_items(data, 0.05, clusters(fewest - 1, fewest - 1), 7)
    assert f"{fewest - 1} validation items in {fewest - 1} clusters are few" in alike
    # More of the file's limit alone would bring no row.
    data.max_validation_rows = fewest - 1
    (capped,) = too_few_items(data, 0.05, [None] * (fewest - 2), 7)
    assert "rows, another validation_fraction and another max_validation_rows" in capped


def test_candidates_are_counted_whatever_their_seeds(compose: Callable[..., Config]) -> None:
    points = [compose(f"lora.rank={rank}", f"seed={n}") for rank in (1, 4, 8) for n in (0, 1)]
    assert judged_at_once([*points, *points]) == 2
    assert judged_at_once([compose("search=settle", f"seed={n}") for n in (0, 1)]) == 1


def test_items_that_would_not_settle_are_told(compose: Callable[..., Config]) -> None:
    def told(items: int, *words: str, search: str = "settle") -> str:
        points = [
            compose(f"search={search}", f"quant={quant}", f"lora.rank={rank}", *words)
            for quant in ("fp16", "nf4")
            for rank in (4, 8)
        ]
        return "".join(too_few_to_settle(points, items))

    # Two thirds of half of 5 % take 87 items that judge, and a quarter chooses.
    z = norm.isf(0.05 / 2 * 2 / 3)
    least = math.ceil(z * z * 0.95 / 0.05)
    assert least == 87
    assert "about 84 validation items of 112 (the others" in told(112)
    assert f"fewer than {least} show nothing" in told(112)
    assert not told(116)
    assert not told(112, "decide.reference_rank=8")
    assert ": 86 validation items judge, and" in told(86, "decide.reference_rank=8")
    assert not told(10, search="grid")


@pytest.mark.parametrize(("ranks", "named"), [((8, 64), ""), ((8, 65, 512), "65,512")])
def test_ranks_that_no_matrix_can_use_are_told(
    compose: Callable[..., Config], ranks: tuple[int, ...], named: str
) -> None:
    shapes = [
        LinearShape("model.layers.0.self_attn.q_proj", "q_proj", 64, 128),
        LinearShape("model.layers.0.mlp.up_proj", "up_proj", 32, 512),
    ]
    told = list(needless_ranks([compose(f"lora.rank={r}") for r in ranks], ModelParts(shapes, [])))
    assert [one.partition(" ")[0] for one in told] == ([f"lora.rank={named}"] if named else [])
    assert all("rank 64 can already change all" in one for one in told)
