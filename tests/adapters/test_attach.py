"""Adapters on a base: new ones as PEFT draws them, trained ones without a draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lorascope.adapters.attach import attach, attach_trained, detach, save_adapter
from lorascope.adapters.stack import trained_parameters
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.files.store import sha256_of_files
from lorascope.quantizers.loading import load_base
from tests.packs import CPU


@pytest.mark.parametrize(
    "words",
    [("lora.rank=4",), ("lora.rank=4", "lora.dora=true", "lora.dropout=0.1"), ("adapter=ia3",)],
    ids=["lora", "dora", "ia3"],
)
@pytest.mark.parametrize("mode", ["fp16", "nf4"])
def test_a_trained_adapter_is_put_on_without_drawing_another(
    project: Layout, compose: Callable[..., Config], tmp_path: Path, mode: str,
    words: tuple[str, ...],
) -> None:  # fmt: skip
    config = compose(f"quant={mode}", *words)
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    drawn = attach(base, config.adapter, seed=3)
    values = {}
    for name, parameter in trained_parameters(drawn).items():
        parameter.data.normal_(1.0, 0.1)
        values[name] = parameter.detach().clone()
    ids = torch.randint(3, 50, (2, 5))
    with torch.no_grad():
        expected = drawn.eval()(input_ids=ids).logits
    save_adapter(drawn, tmp_path / "drawn", "small")
    base = detach(drawn)
    before = torch.get_rng_state()
    trained = attach_trained(base, config.adapter, values, seed=3).eval()
    # PEFT draws IA3's vectors first, and lets go of them then.
    assert torch.equal(torch.get_rng_state(), before) or config.adapter.kind == "ia3"
    with torch.no_grad():
        assert torch.equal(trained(input_ids=ids).logits, expected)
    parameters = trained_parameters(trained)
    assert parameters.keys() == values.keys()
    assert all(parameters[name].data_ptr() == values[name].data_ptr() for name in values)
    save_adapter(trained, tmp_path / "trained", "small")
    assert sha256_of_files(tmp_path / "trained") == sha256_of_files(tmp_path / "drawn")
