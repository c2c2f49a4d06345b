"""A micro-batch that processes divide: their parts add up to the whole, whatever the objective."""

from __future__ import annotations

import pytest
import torch

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.lora.layer import LoraLayer
from lorascope.adapters.lora.stack import LoraStack
from lorascope.adapters.stack import PackShape
from lorascope.config import TrainConfig
from lorascope.machine.ranks import Ranks
from lorascope.objectives.kinds import Objective, Places, Sample, TokenBatch, objective_of
from lorascope.objectives.logits import Logits
from lorascope.objectives.shares import own_batch
from lorascope.records import LinearShape

VOCABULARY, WIDTH = 11, 5
TABLE = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(3))


def forward(batch: TokenBatch, places: Places, adapters: bool = True) -> Logits:
    """Logits that follow from the token at each place."""
    rows = TABLE[batch.input_ids.flatten()[places.index]]
    return Logits(rows, None, [len(rows)])


def completion(length: int, start: int) -> Sample:
    ids = [(start + place) % VOCABULARY for place in range(length)]
    return ids, [-100, *ids[1:]]


def pair(length: int, start: int) -> Sample:
    return (*completion(length, start), *completion(length + 2, start + 4))


@pytest.mark.parametrize(("name", "sample"), [("completion", completion), ("orpo", pair)])
@pytest.mark.parametrize("samples", [1, 2, 5])
def test_the_parts_of_all_processes_add_up_to_the_whole(
    name: str, sample: object, samples: int
) -> None:
    assert callable(sample)
    objective: Objective = objective_of([TrainConfig(objective=name)] * 2)
    trials = [[sample(3 + n % 3, n + 5 * trial) for n in range(samples)] for trial in range(2)]
    whole = objective.collate([own for trial in trials for own in trial], 2, 0)
    parts = [own_batch(objective, trials, 0, Ranks(rank, 3)) for rank in range(3)]
    found = objective.losses(forward, whole)
    each = [objective.losses(forward, part) for part in parts]
    counted = [one.uncounted() if p.is_idle else one for p, one in zip(parts, each, strict=True)]
    assert torch.equal(torch.stack([p.weights for p in parts]).sum(0), whole.weights)
    assert [sum(n) for n in zip(*(p.tokens for p in parts), strict=True)] == whole.tokens
    torch.testing.assert_close(sum(one.summed for one in counted), found.summed)
    assert found.metrics.keys() == counted[0].metrics.keys()
    for key, values in found.metrics.items():
        torch.testing.assert_close(sum(one.metrics[key] for one in counted), values)
    # As wide as the whole, so that all processes need the same memory.
    assert {part.shape[1] for part in parts} == {whole.shape[1]}


@pytest.mark.parametrize(("name", "sample"), [("completion", completion), ("orpo", pair)])
def test_dropout_draws_for_a_row_what_it_draws_in_the_whole(name: str, sample: object) -> None:
    assert callable(sample)
    objective = objective_of([TrainConfig(objective=name)] * 2)
    trials = [[sample(4, n) for n in range(5)] for _ in range(2)]
    shape = PackShape([7, 8], longest_tokens=9, draw=(3, 1))
    layer = _layer(shape)
    whole = objective.collate([own for trial in trials for own in trial], 2, 0)
    kept = _kept(layer, shape, whole)
    for rank in range(3):
        part = own_batch(objective, trials, 0, Ranks(rank, 3))
        share = part.share
        assert share is not None
        own = slice(share.first, share.first + share.count)
        sides = objective.sequences
        expected = kept.view(2, sides, 5, *kept.shape[1:])[:, :, own]
        assert torch.equal(_kept(layer, shape, part), expected.reshape(-1, *kept.shape[1:]))
    assert 0.3 < float((kept == 0).float().mean()) < 0.7


def _layer(shape: PackShape) -> LoraLayer:
    linear = LinearShape("l", "l", WIDTH, WIDTH)
    layer = LoraStack([LoraConfig(rank=2, dropout=0.5)] * 2, [linear], "cpu").layer("l", shape)
    assert isinstance(layer, LoraLayer)
    return layer


def _kept(layer: LoraLayer, shape: PackShape, batch: TokenBatch) -> torch.Tensor:
    """What dropout makes of ones [rows, tokens, features]."""
    shape.batch, shape.share = batch.shape, batch.share
    rows = torch.ones(2, batch.shape[0] // 2 * batch.shape[1], WIDTH)
    return layer._dropped(rows, [0.5, 0.5]).view(*batch.shape, WIDTH)
