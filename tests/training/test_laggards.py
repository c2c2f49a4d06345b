"""Trials that leave their pack at the middle of their steps, and go on to the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.config import Config
from lorascope.data.rows import Segment, read_rows, write_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import Layout
from lorascope.objectives.completion import Completion
from lorascope.records import LossPoint, TrainingResult
from lorascope.training.batches import PackData
from lorascope.training.checkpoint import sign_checkpoint, split_checkpoint
from lorascope.training.laggards import far_behind
from lorascope.training.progress import Stopped, unwatched
from lorascope.training.run import train_pack
from lorascope.training.trial_plan import PackPlan
from tests.devices import CPU
from tests.packs import Interrupted, interrupted_at, pack_plan

Compose = Callable[..., Config]


def curve(*losses: float) -> list[LossPoint]:
    return [LossPoint(step, loss, 0.0, None) for step, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("curves", "seeds", "expected"),
    [
        # The best has come down by 2, from 4 to 2: 3 is half of that, and 3.1 is behind it.
        (["best 3.5 2", "3.5 3", "4 3.1"], [0, 0, 0], [2]),
        # No trial is held against one of another seed, and none against itself alone.
        (["best 3 2", "4 3.9"], [0, 1], []),
        # One loss shows no fall, nor do losses that rise.
        (["best 2", "4"], [0, 0], []),
        (["best 2 2.5", "2 9"], [0, 0], []),
        # One that rises falls behind what falls; the slow one may not wait.
        (["best 4 3", "4 5", "4 4 never"], [1, 1, 1], [1]),
    ],
)
def test_behind_is_what_has_come_down_less_than_half_as_far(
    curves: Sequence[str], seeds: Sequence[int], expected: Sequence[int]
) -> None:
    words = [own.split() for own in curves]
    losses = [curve(*(float(w) for w in own if w[0].isdigit())) for own in words]
    judged = [place for place, own in enumerate(words) if "never" not in own]
    assert far_behind(losses, seeds, judged) == expected


@pytest.fixture
def uneven(project: Layout, tmp_path: Path) -> Path:
    """The toy data, of which seeds bring samples of other lengths into a batch."""
    shutil.copytree(project.data("small", "toy"), tmp_path / "data")
    rows = read_rows(tmp_path / "data/train.jsonl")
    longer = [
        replace(row, segments=[Segment(" has the color" * (index % 5), False), *row.segments])
        for index, row in enumerate(rows)
    ]
    write_rows(tmp_path / "data/train.jsonl", longer)
    return tmp_path / "data"


SETTINGS = ("train.steps=9", "train.log_every_steps=1", "train.micro_batch_size=2")
TRIALS = (
    ("lora.rank=2", "seed=0"), ("lora.rank=2", "seed=1"),
    ("lora.rank=4", "seed=0", "train.learning_rate=1e-6", "lora.dropout=0.1"),
    ("lora.rank=16", "seed=1", "train.learning_rate=1e-6"),
)  # fmt: skip
"""The last two learn nothing."""


def results(plan: PackPlan, progress: Callable[..., bool] = unwatched) -> list[TrainingResult]:
    outcomes = train_pack(plan, CPU, progress)
    found = [outcome for outcome in outcomes if isinstance(outcome, TrainingResult)]
    assert len(found) == len(outcomes)
    return found


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["fp16", "nf4"])
def test_what_waits_and_what_goes_on_end_with_the_bits_of_the_whole_pack(
    project: Layout, compose: Compose, uneven: Path, tmp_path: Path, mode: str
) -> None:
    configs = [compose(f"quant={mode}", *SETTINGS, *trial) for trial in TRIALS]
    adapters = [tmp_path / f"trial{place}" for place in range(len(configs))]
    plan = replace(pack_plan(project, configs, adapters), data=uneven)
    whole = results(plan)
    trials = [replace(t, may_wait=place > 0) for place, t in enumerate(plan.trials)]
    parted = replace(plan, trials=trials, checkpoints=tmp_path / "whole")
    with pytest.raises(Stopped) as stopped:
        train_pack(parted, CPU)
    assert (stopped.value.step, stopped.value.behind) == (4, [2, 3])
    parts = {tmp_path / "left": [0, 1], tmp_path / "third": [2], tmp_path / "fourth": [3]}
    split_checkpoint(tmp_path / "whole/checkpoint-4", parts)
    assert not list((tmp_path / "whole").iterdir())
    for folder, places in parts.items():
        part = replace(parted, trials=[trials[i] for i in places], checkpoints=folder)
        if places == [2]:
            # Killed between two checkpoints, of which the second says the same.
            often = [
                replace(t, train=replace(t.train, checkpoint_every_steps=3)) for t in part.trials
            ]
            part = replace(part, trials=often)
            with pytest.raises(Interrupted):
                train_pack(part, CPU, interrupted_at(8))
        for place, result in zip(places, results(part), strict=True):
            assert result.resumed_at_step == (6 if places == [2] else 4)
            assert result.losses == whole[place].losses
            assert result.adapter_sha256 == whole[place].adapter_sha256
            assert result.processed_tokens == whole[place].processed_tokens


def test_a_part_is_padded_as_the_whole_pack_was(
    project: Layout, compose: Compose, uneven: Path
) -> None:
    """Or it would be equal but for rounding."""
    train = compose(*SETTINGS).train
    rows = read_rows(uneven / "train.jsonl")
    samples = Completion().samples(rows, load_tokenizer(project.quantized("small", "fp16")), False)
    pair, alone, part = (
        PackData(samples, own, train, Completion(), 0) for own in ([0, 1], [1], [1])
    )
    part.padded_to = [0, 1]

    def lengths(data: PackData) -> list[int]:
        return [b.shape[1] for step in range(4) for b in data.micro_batches(step)]

    assert lengths(part) == lengths(pair)
    assert lengths(alone) != lengths(pair)
    for one, two in zip(part.micro_batches(2), pair.micro_batches(2), strict=True):
        assert torch.equal(one.input_ids, two.input_ids[len(one.input_ids) :])


def test_what_is_a_number_a_trial_goes_with_its_trial(tmp_path: Path) -> None:
    """Loss scales, which FP16 has on a GPU."""
    (tmp_path / "checkpoint-3").mkdir()
    tensors = {"loss_scales": torch.tensor([1.0, 2.0, 4.0])}
    tensors |= {f"{place}.values": torch.full((2,), float(place)) for place in range(3)}
    save_file(tensors, tmp_path / "checkpoint-3/pack.safetensors")
    facts = '{"schedule": {"last_epoch": 3}, "log": {"tokens": [5, 6, 7]}, "padded_to": [0, 1, 2]}'
    (tmp_path / "checkpoint-3/pack.json").write_text(facts)
    sign_checkpoint(tmp_path / "checkpoint-3")
    split_checkpoint(tmp_path / "checkpoint-3", {tmp_path / "a": [0, 2]})
    part = load_file(tmp_path / "a/checkpoint-3/pack.safetensors")
    assert {name: own.tolist() for name, own in part.items()} == {
        "loss_scales": [1, 4], "0.values": [0, 0], "1.values": [2, 2],
    }  # fmt: skip
    said = (tmp_path / "a/checkpoint-3/pack.json").read_text()
    assert '"tokens": [5, 7]}, "padded_to": [0, 1, 2]' in said
