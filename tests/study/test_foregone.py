"""What `check` knows before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from scipy.stats import norm

from lorascope.config import Config, Scoring
from lorascope.data.conversations import Conversation
from lorascope.records import LinearShape, ModelParts
from lorascope.study.foregone import needless_ranks, too_few_items


def conversations(count: int, clusters: int | None = None) -> list[Conversation]:
    one = Conversation(turns=(), source="x")
    return [
        replace(one, cluster=None if clusters is None else f"c{n % clusters}") for n in range(count)
    ]


def test_items_that_cannot_show_the_margin_are_told_before_training(
    compose: Callable[..., Config],
) -> None:
    config = compose("decide.margin_accuracy=0.05")
    config.data.scoring = Scoring.answer
    # Tango's interval of no changed answer ends at z^2 / (n + z^2).
    squared = float(norm.ppf(0.975)) ** 2
    fewest = next(n for n in range(1, 200) if squared / (n + squared) < 0.05)
    assert not list(too_few_items(config, conversations(fewest)))
    (told,) = too_few_items(config, conversations(fewest - 1))
    assert f"{fewest - 1} validation items cannot show" in told
    assert "would still reach 5.1 points" in told
    # Twenty groups of ten are worth less than 200 items.
    (told,) = too_few_items(config, conversations(200, clusters=20))
    assert "200 validation items in 20 clusters" in told
    config.data.max_validation_rows = 20
    (told,) = too_few_items(config, conversations(1000))
    assert told.startswith("20 validation items")
    config.data.scoring = Scoring.loss
    assert not list(too_few_items(config, conversations(5)))


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
