"""Whole numbers with a scale a group, held to torchao's own numbers."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchao.quantization.quant_primitives import (
    MappingType,
    _choose_scale_float8,
    _dequantize_affine_float8,
    _quantize_affine_float8,
    choose_qparams_affine,
    quantize_affine,
)
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
    IntxUnpackedToInt8Tensor,
)
from transformers import AutoModelForCausalLM

from lorascope.adapters.any_peft import AnyPeftConfig
from lorascope.config import GROUPED, Config, QuantConfig, Storage, Targets
from lorascope.counting.architectures import WeightMatrix
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.machine.devices import Device
from lorascope.quantizers.bits import linear_bytes
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.quantizers.loading import load_base, quantize_base
from lorascope.quantizers.torchao import grid as grids
from lorascope.quantizers.torchao.codes import coded, packed, rounded, unpacked
from lorascope.quantizers.torchao.grid import Grid, grid_of
from lorascope.quantizers.torchao.layer import GridLinear

CPU = Device("cpu", "cpu")
UINT8 = Grid(bits=8, symmetric=False)
WHOLE_NUMBERS = [storage for storage in GROUPED if storage is not Storage.fp8]


def test_the_examples_of_textbooks_hold() -> None:
    assert doctest.testmod(grids) == (0, 4)


@pytest.mark.parametrize(("smallest", "largest", "scale", "zero_point", "value", "code"), [
    (0.0, 1000.0, 3.92, 0, 250.0, 64), (-20.0, 1000.0, 4.0, 5, -20.0, 0),
])  # fmt: skip
def test_scale_and_zero_point_are_torchaos(
    smallest: float, largest: float, scale: float, zero_point: int, value: float, code: int
) -> None:
    values = torch.tensor([[smallest, value, largest]])
    theirs = choose_qparams_affine(values, MappingType.ASYMMETRIC, (1, 3), torch.uint8, 0, 255)
    codes = quantize_affine(values, (1, 3), *theirs, torch.uint8, 0, 255)
    assert (round(theirs[0].item(), 2), int(theirs[1])) == (scale, zero_point)
    ours, zero = UINT8.constants(smallest, largest)
    assert ours == pytest.approx(theirs[0].item(), rel=1e-6)
    assert zero == zero_point
    assert codes[0].tolist() == [UINT8.code(v, smallest, largest) for v in values[0].tolist()]
    assert codes[0, 1] == code


@pytest.mark.parametrize("storage", WHOLE_NUMBERS)
@pytest.mark.parametrize("group_size", [None, 32])
def test_a_weight_on_a_grid_is_torchaos_to_the_bit(storage: Storage, group_size: int) -> None:
    """torchao keeps asymmetric codes shifted by half their number."""
    grid, weight = grid_of(storage, group_size), _weight(96, 256)
    theirs = IntxUnpackedToInt8Tensor.from_hp(
        weight,
        (1, group_size or 256),
        getattr(torch, f"int{grid.bits}"),
        mapping_type=MappingType.SYMMETRIC if grid.symmetric else MappingType.ASYMMETRIC,
    )
    assert torch.equal(rounded(weight, grid, torch.float32), theirs.dequantize())
    ours = coded(weight, grid, torch.float32)
    assert torch.equal(ours.scales, theirs.scale)
    shift = 0 if grid.symmetric else 1 << grid.bits - 1
    assert torch.equal(ours.codes.int() - shift, theirs.qdata.int())


@pytest.mark.parametrize("group_size", [None, 32])
def test_floats_of_8_bits_are_torchaos_to_the_bit(group_size: int | None) -> None:
    grid, weight = grid_of(Storage.fp8, group_size), _weight(96, 256)
    block = (1, group_size or 256)
    scales = _choose_scale_float8(weight, block)
    codes = _quantize_affine_float8(weight, scales)
    ours = coded(weight, grid, torch.float32)
    assert torch.equal(ours.scales, scales)
    assert torch.equal(ours.codes.view(torch.float8_e4m3fn).float(), codes.float())
    assert torch.equal(
        rounded(weight, grid, torch.float32), _dequantize_affine_float8(codes, scales)
    )
    # A scale that 16 bits round down must not make the largest weight no number.
    assert torch.isfinite(rounded(weight, grid, torch.bfloat16)).all()


@pytest.mark.parametrize("storage", GROUPED)
@pytest.mark.parametrize("shape", [(5, 33), (1, 1), (64, 172)])
def test_odd_shapes_are_packed_and_come_back(storage: Storage, shape: tuple[int, int]) -> None:
    grid, weight = grid_of(storage, 32), _weight(*shape)
    layer = GridLinear(shape[1], shape[0], False, grid, torch.float16)
    layer.store(weight)
    on = coded(weight, grid, torch.float16)
    assert torch.equal(unpacked(packed(on.codes, grid), grid, shape), on.codes)
    assert torch.equal(layer.dequantize(), rounded(weight, grid, torch.float16))
    stored = [layer.weight, *QUANTIZERS[storage].constants(layer)]
    mode = QuantConfig("mode", storage, group_size=32)
    matrix = WeightMatrix("", shape[1], shape[0])
    counted = linear_bytes([matrix], QUANTIZERS[storage].bits(mode))
    assert sum(tensor.nbytes for tensor in stored) == counted
    # The last group of a row has a scale of its own: as if it were a row.
    start = shape[1] - shape[1] % 32
    if start < shape[1]:
        last = rounded(weight[:, start:], grid_of(storage, None), torch.float16)
        assert torch.equal(layer.dequantize()[:, start:], last)


def test_zeros_stay_zeros_and_tiny_weights_stay_finite() -> None:
    for storage in GROUPED:
        grid = grid_of(storage, 32)
        assert not rounded(torch.zeros(2, 64), grid, torch.float16).any()
        tiny = torch.full((2, 64), 1e-9)
        assert (rounded(tiny, grid, torch.float16) - tiny).abs().max() < 1e-7


@pytest.mark.parametrize("storage", [Storage.int8_sym, Storage.uint4_asym, Storage.fp8])
def test_products_and_gradients_are_those_of_the_plain_weight(storage: Storage) -> None:
    layer = GridLinear(40, 24, True, grid_of(storage, 32), torch.float16)
    layer.store(_weight(24, 40))
    nn.init.normal_(layer.bias)
    plain = nn.Linear(40, 24)
    plain.weight.data, plain.bias.data = layer.dequantize(), layer.bias.data
    ours, theirs = (torch.randn(3, 7, 40, requires_grad=True) for _ in range(2))
    theirs.data = ours.data.clone()
    results = layer(ours), plain(theirs)
    assert torch.equal(*results)
    for result in results:
        (result**2).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]


def test_asymmetric_codes_move_logits_less_than_symmetric_ones(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    """And each mode is loaded as it was stored, to the bit, with codes of the very base."""
    base = project.base("small")
    exact = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    ids = torch.arange(2, 22).view(2, 10)
    wanted, errors = exact(input_ids=ids).logits, {}
    weights = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    for storage in GROUPED:
        quant = compose(f"quant={storage}").quant
        quantize_base(base, quant, CPU, tmp_path / storage)
        model = load_base(tmp_path / storage, quant, CPU)
        layer = model.get_submodule(name)
        grid = grid_of(storage, quant.group_size)
        exact_codes = rounded(weights[f"{name}.weight"].float(), grid, torch.float16)
        assert torch.equal(QUANTIZERS[storage].weight(layer), exact_codes)
        assert layer.scales.dtype is torch.float16
        said = model(input_ids=ids).logits
        errors[storage] = float((said - wanted).detach().norm() / wanted.detach().norm())
    for bits in (8, 4, 2):
        assert errors[Storage(f"uint{bits}_asym")] < errors[Storage(f"int{bits}_sym")]
    # Three bits of mantissa are as many as 4-bit codes have steps, over a wider range.
    assert errors[Storage.int8_sym] < errors[Storage.fp8] < errors[Storage.int4_sym]
    assert errors[Storage.int8_sym] < 0.02 < errors[Storage.int4_sym] < errors[Storage.int2_sym]


def test_methods_that_read_codes_as_weights_are_refused(compose: Callable[..., Config]) -> None:
    adapter = AnyPeftConfig(type="HIRA", targets=Targets.attention)
    with pytest.raises(ConfigError, match=r"peft.type='HIRA'.*as if they were weights"):
        QUANTIZERS[Storage.int4_sym].require_trainable(adapter, "cpu")
    QUANTIZERS[Storage.int4_sym].require_trainable(compose().adapter, "cpu")


def _weight(out_features: int, in_features: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(out_features + in_features)
    return torch.randn((out_features, in_features), generator=generator) * 0.05 + 0.01
