"""The tracker counts every live tensor once, and changes nothing that is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.machine.devices import Device
from lorascope.meters.batches import BatchMemory
from lorascope.meters.tracker import TensorTracker, persistent_tensors
from lorascope.quantizers.loading import load_base
from tests.devices import CPU
from tests.packs import plan_for, train_alone

NOT_TRACKING = Device("cuda", "where the allocator measures")


def test_peak_is_the_most_that_lives_at_once() -> None:
    with TensorTracker() as tracker:
        first = torch.ones(1000)
        second = first * 2
        del first
        third = second + 1
        del third
    assert tracker.peak_bytes == 2 * 4000
    assert tracker.live_bytes == 4000
    del second
    assert tracker.live_bytes == 0


def test_views_and_results_in_place_take_no_bytes() -> None:
    with TensorTracker() as tracker:
        whole = torch.zeros(10, 10)
        whole.t()[2:].add_(1)
        whole.reshape(-1)
    assert tracker.peak_bytes == 400


def test_segments_keep_their_own_peaks() -> None:
    with TensorTracker() as tracker:
        kept = torch.zeros(10)
        tracker.mark("later")
        torch.zeros(100)
    assert tracker.segments == {"start": 40, "later": 440}
    assert len(kept) == 10


def test_a_training_step_with_frozen_weights_counts_gradients_and_saved_tensors() -> None:
    layer, frozen = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    frozen.requires_grad_(False)
    tracker = TensorTracker()
    tracker.add(persistent_tensors(nn.Sequential(layer, frozen)))
    assert tracker.live_bytes == 2 * 8 * 8 * 4
    with tracker:
        layer(frozen(torch.ones(2, 8))).sum().backward()
    # The weight's gradient is what remains.
    assert tracker.live_bytes == 3 * 8 * 8 * 4


def test_storages_count_in_blocks_of_the_allocator() -> None:
    with TensorTracker(block_bytes=512) as tracker:
        kept = torch.zeros(1), torch.zeros(129)
    assert tracker.live_bytes == 512 + 1024
    assert len(kept) == 2


@pytest.mark.parametrize("mode", ["fp16", "int8", "nf4", "nf4_dq"])
def test_persistent_tensors_are_the_exact_bytes_of_a_base(
    project: Layout, compose: Callable[..., Config], mode: str
) -> None:
    from lorascope.quantizers.footprint import measure_footprint

    config = compose(f"quant={mode}")
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    expected = measure_footprint(base).total_bytes
    with torch.no_grad():
        # An 8-bit layer moves its scales in its first pass.
        base(input_ids=torch.tensor([[3, 4]]))
    tracker = TensorTracker()
    tracker.add(persistent_tensors(base))
    assert tracker.live_bytes == expected


@pytest.mark.parametrize("mode", ["fp16", "int8", "nf4_dq"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_are_the_same_bytes_with_and_without_the_tracker(
    project: Layout,
    compose: Callable[..., Config],
    tmp_path: Path,
    mode: str,
    checkpointing: bool,
) -> None:
    config = compose(
        f"quant={mode}", "lora.dropout=0.1", f"train.gradient_checkpointing={checkpointing}"
    )
    plan = plan_for(project, config, tmp_path / "a")
    tracked = train_alone(plan, CPU)
    plain = train_alone(plan, CPU, memory=BatchMemory(NOT_TRACKING))
    assert tracked.adapter_sha256 == plain.adapter_sha256
    assert tracked.losses == plain.losses
    assert tracked.validation_loss_nats == plain.validation_loss_nats
    assert tracked.memory["train"].tracked_peak_bytes
    assert plain.memory["train"].tracked_peak_bytes is None
    assert tracked.largest_evaluation_batch == plain.largest_evaluation_batch


def test_only_batches_that_could_set_a_peak_are_measured(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    """All toy rows are equally long: the first step, and the second, which finds the optimizer's
    state."""
    memory = BatchMemory(CPU)
    config = compose("quant=fp16", "train.steps=20", "train.micro_batch_size=4")
    result = train_alone(plan_for(project, config, tmp_path / "a"), CPU, memory=memory)
    assert [batch.optimizer_state for batch in memory._seen] == [False, True]
    assert memory.largest is not None
    assert result.largest_batch == (memory.largest.samples, memory.largest.tokens) == (4, 7)
