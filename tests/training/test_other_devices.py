"""What a training does on a device that is no CPU, as far as a CPU can tell: where the host waits,
what attention is told of padding, and where a checkpoint's tensors come back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
)

from lorascope.adapters.ia3 import Ia3Config
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.config import Config, TrainConfig
from lorascope.files.layout import Layout
from lorascope.machine.devices import Device
from lorascope.meters.batches import BatchMemory
from lorascope.objectives.completion import Completion
from lorascope.objectives.evaluation import forward_of, summed_loss
from lorascope.objectives.kinds import Places, TokenBatch
from lorascope.objectives.masks import unread_masks
from lorascope.quantizers.loading import load_base
from lorascope.training.checkpoint import PackCheckpoints
from lorascope.training.log import PackLog
from lorascope.training.loop import StepEnd, StepNumbers, StepParts, train_step
from lorascope.training.optimizer import LossScales, adamw, rows_of, schedule_of
from lorascope.training.pack import PackedModel, pack_adapters
from tests.packs import CPU

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default,
    aten.nonzero.default, aten.masked_select.default, aten._unique2.default,
    aten.unique_dim.default, aten.unique_consecutive.default, aten.repeat_interleave.Tensor,
    aten.bincount.default,
}  # fmt: skip
"""Operations whose result, or the size of it, the host has to know."""
BY_PLACE = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}
"""Operations that look for the places of a mask."""
SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 60, "max_position_embeddings": 32,
}  # fmt: skip
ARCHITECTURES: list[PretrainedConfig] = [
    LlamaConfig(**SHAPE, num_hidden_layers=2),
    MistralConfig(**SHAPE, num_hidden_layers=2, sliding_window=4),
    GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=32, resid_pdrop=0,
               embd_pdrop=0, attn_pdrop=0),
    OPTConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, ffn_dim=48, dropout=0,
              num_attention_heads=4, max_position_embeddings=32, word_embed_proj_dim=32),
]  # fmt: skip
"""Grouped heads, a window, learnt positions, and positions that are counted from the mask."""


class HostWaits:
    """Calls for which the host would wait for a GPU, by name, while it is entered."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __enter__(self) -> list[str]:
        self._modes = ExitStack()
        self._modes.enter_context(_Operations(self.calls))
        self._modes.enter_context(_Methods(self.calls))
        return self.calls

    def __exit__(self, *_: object) -> None:
        self._modes.close()


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, calls: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = calls

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        by_mask = func in BY_PLACE and any(
            own.dtype in (torch.bool, torch.uint8) for own in args[1] if own is not None
        )
        result = func(*args, **(kwargs or {}))
        tensors = [own for own in tree_leaves((args, kwargs, result)) if isinstance(own, Tensor)]
        blocking = not (kwargs or {}).get("non_blocking", False)
        copied = len({own.device.type for own in tensors if own.dim() or own is result}) > 1
        if func in READS or by_mask or (copied and blocking):
            self._calls.append(str(func))
        return result


class _Methods(TorchFunctionMode):
    """Methods that read a CPU's tensor without an operation."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.cpu):
            self._calls.append(func.__name__)
        return func(*args, **(kwargs or {}))


def padded_batch(trials: int = 2) -> TokenBatch:
    """Two samples of each trial, the second of them shorter."""
    torch.manual_seed(0)
    rows = [torch.randint(3, 50, (length,)) for _ in range(trials) for length in (9, 6)]
    batch = Completion().collate([(row, row) for row in rows], trials, 0)
    assert batch.padded
    return batch


def on(device: str, batch: TokenBatch) -> TokenBatch:
    ids, mask, labels, weights, index = (tensor.to(device) for tensor in batch.tensors())
    places = Places(index, batch.places.counts)
    return TokenBatch(ids, mask, labels, weights, places, batch.tokens, batch.padded)


def parts_of(pack: PackedModel, scales: LossScales | None = None) -> StepParts:
    return StepParts(
        pack=pack,
        objective=Completion(),
        optimizer=adamw(pack.stack.rows, [TrainConfig()] * len(pack.stack.rows)),
        max_gradient_norms=[1.0] * len(pack.stack.rows),
        autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        # As on CUDA, where the allocator measures.
        meter=BatchMemory(Device("cuda", "none")),
        scales=scales,
    )


@pytest.mark.parametrize("scaled", [False, True], ids=["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fp16", ("lora.rank=4", "train.gradient_checkpointing=true")),
        ("nf4_dq", ("lora.rank=4", "lora.dora=true")),
        ("nf4", ("lora.rank=4", "lora.dropout=0.1")),
        ("fp16", ("adapter=ia3",)),
    ],
    ids=["lora", "dora", "dropout", "ia3"],
)  # fmt: skip
def test_the_host_waits_once_a_step_for_loss_scales_and_else_never(
    project: Layout, compose: Callable[..., Config], mode: str, words: tuple[str, ...], scaled: bool
) -> None:
    config = compose(f"quant={mode}", *words)
    trials = 1 if "adapter=ia3" in words else 2
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    pack = pack_adapters(base, [config.adapter] * trials, list(range(trials)))
    if config.train.gradient_checkpointing:
        base.activation_checkpointing_enable()
    parts = parts_of(pack, LossScales(trials, "cpu") if scaled else None)
    log = PackLog(trials, "cpu", every=10)
    for step in range(2):
        batches = [padded_batch(trials)] * 2
        with unread_masks("cuda"), HostWaits() as calls:
            numbers = train_step(parts, batches, step, [False] * trials)
            log.after_step(StepEnd(step + 1, 20, numbers))
        assert calls == (["tolist"] if scaled else [])


def test_a_point_of_the_log_is_read_at_once() -> None:
    log = PackLog(2, "cpu", every=2)
    numbers = StepNumbers([torch.ones(2)], torch.ones(2), [3, 4], [0.1, 0.1])
    for step, waits in [(1, 0), (2, 1), (3, 0)]:
        with HostWaits() as calls:
            log.after_step(StepEnd(step, 10, numbers))
        assert len(calls) == waits
    assert [point.loss_nats for point in log.points[1]] == [1.0]


@pytest.mark.parametrize(("device", "reads"), [("cuda", 2), ("cpu", 3)])
def test_a_loss_of_a_split_is_read_once(device: str, reads: int) -> None:
    """Of each batch weight and padding are read while it is on the host. A CPU's attention asks for
    the padding again."""
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[0])
    samples = [(row, row) for row in torch.randint(3, 50, (6, 5))]
    with unread_masks(device), HostWaits() as calls:
        total, weight = summed_loss(Completion(), model, samples, 2)
    assert calls.count("aten._local_scalar_dense.default") == 3 * reads + 1
    assert (total > 0, weight) == (True, 6 * 4)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda own: own.model_type)
def test_nobody_asks_a_device_what_is_padded(architecture: PretrainedConfig) -> None:
    """What lies on the meta device cannot be read at all."""
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(architecture)
    batch = on("meta", padded_batch(trials=1))
    assert forward_of(base)(batch, batch.places).all().shape == (8 + 5, 60)
    # Autocast, which LoRA's layers ask about, knows no meta device.
    assert pack_adapters(base, [Ia3Config()], [0])(batch, batch.places).all().shape == (8 + 5, 60)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda own: own.model_type)
def test_padding_on_the_right_needs_no_mask(architecture: PretrainedConfig) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(architecture)
    batch, found = padded_batch(), []
    for device in ("cpu", "cuda"):
        model.zero_grad()
        with unread_masks(device):
            losses = Completion().losses(forward_of(model), batch).summed
        losses.sum().backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((losses.detach(), gradients))
    (masked, its), (unmasked, others) = found
    assert torch.allclose(masked, unmasked, rtol=1e-6)
    assert len(its) == len(others) > 0
    for one, other in zip(its, others, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_resumed_packs_state_lies_where_its_values_lie(tmp_path: Path) -> None:
    """Fused AdamW wants its counter of steps on the parameters' device."""

    def checkpoints(device: str) -> tuple[StepParts, PackCheckpoints]:
        with torch.device(device):
            base = AutoModelForCausalLM.from_config(ARCHITECTURES[0])
        pack = pack_adapters(base, [LoraConfig(rank=rank) for rank in (4, 16)], [0, 1])
        pack.keep_best()
        train = TrainConfig(steps=4, epochs=None)
        # Fused AdamW knows no meta device.
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(pack.stack.rows[:1])
        for row in pack.stack.rows[1:]:
            optimizer.add_param_group({"params": [row]})
        parts = StepParts(
            pack, Completion(), optimizer, [1.0] * 2, ExitStack,
            BatchMemory(Device("cuda", "none")), LossScales(2, device),
        )  # fmt: skip
        log = PackLog(2, device, every=1)
        schedule = schedule_of(train, optimizer, 4)
        return parts, PackCheckpoints(tmp_path, 1, parts, schedule, log)

    parts, saved = checkpoints("cpu")
    numbers = train_step(parts, [padded_batch()], 0, [False, False])
    saved.after_step(StepEnd(1, 4, numbers))
    parts, resumed = checkpoints("meta")
    assert resumed.resume() == 1
    states = [parts.optimizer.state[row] for row in rows_of(parts.optimizer)]
    assert [sorted(state) for state in states] == [["exp_avg", "exp_avg_sq", "step"]] * 2
    assert parts.scales is not None
    tensors = [own for state in states for own in state.values()]
    tensors += [parts.scales.scales, parts.scales.good_steps, *parts.pack.best_rows]
    assert {own.device.type for own in tensors} == {"meta"}
