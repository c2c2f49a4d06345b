"""Types under mixed precision: what is computed in 16 bits stays in 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from lorascope.adapters.attach import load_adapter
from lorascope.config import AdapterConfig, Config
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import Layout
from lorascope.objectives.completion import Completion, completion_loss
from lorascope.planning.fake_mode import CudaAutocast
from lorascope.quantizers.loading import load_base
from lorascope.training.pack import PackedModel, pack_adapters
from tests.packs import CPU, plan_for, train_alone

ADAPTERS = (
    (),
    ("lora.rslora=true", "lora.dropout=0.1"),
    ("lora.dora=true",),
    ("lora.dora=true", "lora.dropout=0.1"),
    ("adapter=ia3",),
    ("adapter=vera", "vera.rank=8"),
    ("adapter=oft", "oft.block_size=8"),
    ("adapter=miss", "miss.rank=8"),
    ("adapter=bottleneck", "bottleneck.size=8"),
    ("adapter=ln",),
)
NO_TRAINING = ("int8", "lora.dora=true")
"""Mode and adapter that bitsandbytes cannot train on a CPU."""


def stepped_types(pack: PackedModel, layers: nn.ModuleList, on_cuda: bool) -> dict[str, Any]:
    """Types of what adapted layers and decoder layers give in one training step."""
    seen: dict[str, Any] = {}

    def watch(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, given: Any, result: Any) -> None:
            seen[name] = (result[0] if isinstance(result, tuple) else result).dtype

        module.register_forward_hook(hook)

    for name in pack.layers:
        watch(name, pack.base.get_submodule(name))
    for number, layer in enumerate(layers):
        watch(f"layer {number}", layer)
    batch = Completion().collate([(row, row) for row in torch.randint(3, 50, (2, 5))], 1, 0)
    pack.train()
    with autocast(on_cuda):
        loss = Completion().losses(pack, batch).summed.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype is torch.float32
    gradients = [row.grad for row in pack.stack.rows]
    assert all(own is not None and own.dtype is torch.float32 for own in gradients)
    assert all(own is not None and own.any() and own.isfinite().all() for own in gradients)
    return seen


@contextmanager
def autocast(on_cuda: bool) -> Iterator[None]:
    """A CPU's mixed precision, or CUDA's on a CPU: norms give float32 there."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if not on_cuda:
            yield
            return
        with CudaAutocast():
            yield


@pytest.mark.parametrize("mode", ["fp16", "int8", "nf4"])
@pytest.mark.parametrize("on_cuda", [False, True], ids=["cpu", "cuda's rules"])
def test_adapted_layers_and_the_residual_stream_stay_in_16_bits(
    project: Layout, compose: Callable[..., Config], mode: str, on_cuda: bool
) -> None:
    for asked in ADAPTERS:
        if mode == NO_TRAINING[0] and NO_TRAINING[1] in asked:
            continue
        config = compose(f"quant={mode}", "quant.compute=bfloat16", *asked)
        base = load_base(project.quantized("small", mode), config.quant, CPU)
        pack = pack_adapters(base, [config.adapter], [0])
        types = stepped_types(pack, base.model.layers, on_cuda)
        assert set(types.values()) == {torch.bfloat16}, (asked, types)


@pytest.mark.parametrize("asked", ADAPTERS)
def test_layers_behind_norms_that_give_float32_compute_in_16_bits(
    compose: Callable[..., Config], asked: tuple[str, ...]
) -> None:
    """CUDA's layer_norm gives float32 under autocast."""
    config: AdapterConfig = compose(*asked).adapter
    small = GPTNeoXConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    base = GPTNeoXForCausalLM(small).to(torch.bfloat16).requires_grad_(False)
    pack = pack_adapters(base, [config], [0])
    types = stepped_types(pack, base.gpt_neox.layers, on_cuda=True)
    assert set(types.values()) == {torch.bfloat16}, types


@pytest.mark.parametrize("asked", ADAPTERS[4:], ids=lambda words: words[0])
def test_what_is_loaded_again_is_what_was_validated(
    project: Layout, compose: Callable[..., Config], tmp_path: Path, asked: tuple[str, ...]
) -> None:
    config = compose("quant=nf4", "quant.compute=bfloat16", "train.steps=3", *asked)
    result = train_alone(plan_for(project, config, tmp_path / "adapter"), CPU)
    stored = project.quantized("small", "nf4")
    rows = read_rows(project.data("small", "toy") / "validation.jsonl")
    base = load_base(stored, config.quant, CPU)
    tokenizer = load_tokenizer(stored)
    loss, tokens = completion_loss(load_adapter(base, tmp_path / "adapter"), tokenizer, rows, 8)
    assert loss / tokens == result.validation_loss_nats
