"""Bits and bytes against published values, and against tensors that bitsandbytes makes."""

from __future__ import annotations

from collections.abc import Sequence

import bitsandbytes.functional as bnb
import pytest
import torch

from lorascope.bases.known_configs import known_config
from lorascope.config import QuantConfig, Storage
from lorascope.counting.architectures import ModelShape, WeightMatrix, table_shape
from lorascope.counting.parameters import matrix_parameters
from lorascope.quantizers.bits import (
    StoredBits,
    linear_bytes,
    mean_asymptotic_bits,
    weight_bytes,
)
from lorascope.quantizers.kinds import QUANTIZERS

LLAMA_2_7B = table_shape(known_config("llama-2-7b"))
LLAMA_2_13B = table_shape(known_config("llama-2-13b"))
GEMMA_2B = table_shape(known_config("gemma-2b"))
CODELLAMA_34B = table_shape(
    {
        **known_config("llama-2-70b"),
        "num_hidden_layers": 48,
        "intermediate_size": 22016,
    }
)
SQUARE, UP, DOWN = (2048, 2048), (2048, 8192), (8192, 2048)
PHI_1_5 = [WeightMatrix("", *shape) for shape in (SQUARE,) * 4 + (UP, DOWN)] * 24


def bits(storage: Storage, double: bool = False) -> StoredBits:
    return QUANTIZERS[storage].bits(QuantConfig("", storage, double))


FP16, INT8, NF4 = (bits(storage) for storage in (Storage.float16, Storage.int8, Storage.nf4))
NF4_DQ = bits(Storage.nf4, double=True)


def test_weight_bytes_of_published_sizes() -> None:
    assert weight_bytes(175_000_000_000, bits(Storage.float32)) == 700_000_000_000
    assert [weight_bytes(1000, stored) for stored in (FP16, INT8, NF4)] == [2000, 1000, 500]
    assert weight_bytes(5, NF4) == 3


def test_asymptotic_bits_of_published_formats() -> None:
    assert NF4.asymptotic(4096) == 4.5
    assert NF4_DQ.asymptotic(4096) == pytest.approx(4.127, abs=5e-4)
    assert NF4.asymptotic(4096) - NF4_DQ.asymptotic(4096) == pytest.approx(0.373, abs=5e-4)
    assert INT8.asymptotic(4096) == 8 + 32 / 4096
    assert FP16.asymptotic(4096) == 16


def test_each_storage_has_the_bits_of_its_format() -> None:
    widths = [32, 16, 16, 8, 4, 4, 8, 4, 2, 8, 4, 2, 8, 8, 8]
    assert [bits(storage).weight_bits for storage in Storage] == widths
    assert (bits(Storage.nf4), bits(Storage.fp4, double=True)) == (NF4, NF4_DQ)


def model_gigabytes(shape: ModelShape, stored: StoredBits) -> float:
    """Linear matrices as `stored`, everything else at 16 bits."""
    linear = shape.matrices
    rest = 2 * (shape.total_parameters - matrix_parameters(linear))
    return (linear_bytes(linear, stored) + rest) / 1e9


@pytest.mark.parametrize(("shape", "published"), [
    (LLAMA_2_7B, (13.48, 7.00, 4.17, 3.87)), (GEMMA_2B, (5.01, 3.03, 2.16, 2.07)),
], ids=["Llama-2-7B", "gemma-2b"])  # fmt: skip
def test_linear_bytes_of_whole_models(
    shape: ModelShape, published: tuple[float, float, float, float]
) -> None:
    sizes = [model_gigabytes(shape, stored) for stored in (FP16, INT8, NF4, NF4_DQ)]
    # The printed INT8 sizes leave out the row scales: 7.001 without, 7.006 with them.
    row_scales = sum(INT8.constant_bytes(m) for m in shape.matrices) / 1e9
    sizes[1] -= row_scales
    assert sizes == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize(("linear", "gigabytes"), [
    (PHI_1_5, 0.056), (LLAMA_2_7B.matrices, 0.302), (LLAMA_2_13B.matrices, 0.592),
    (CODELLAMA_34B.matrices, 1.549),
], ids=["phi-1.5", "Llama-2-7B", "Llama-2-13B", "CodeLlama-34B"])  # fmt: skip
def test_double_quantization_saves_what_the_formula_says(
    linear: Sequence[WeightMatrix], gigabytes: float
) -> None:
    saving = linear_bytes(linear, NF4) - linear_bytes(linear, NF4_DQ)
    assert saving / 1e9 == pytest.approx(gigabytes, abs=0.0006)


def test_mean_asymptotic_bits_weighs_by_parameters() -> None:
    matrices = [WeightMatrix("a", 32, 10), WeightMatrix("b", 320, 10)]
    scales = 20 * 32
    assert mean_asymptotic_bits(matrices, INT8) == pytest.approx(8 + scales / 3520)


def measured_4bit(weight: torch.Tensor, quant_type: str, double: bool) -> tuple[int, int, int]:
    """Bytes of packed weight, own constants and code tables, as bitsandbytes made them."""
    packed, state = bnb.quantize_4bit(
        weight, blocksize=64, quant_type=quant_type, compress_statistics=double
    )
    own, tables = [state.absmax], [state.code]
    if double:
        own += [state.state2.absmax, state.offset]
        tables += [state.state2.code]
    return packed.nbytes, sum(t.nbytes for t in own), sum(t.nbytes for t in tables)


SHAPES = [(64, 64), (70, 100), (129, 768), (320, 4096), (8, 8)]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_4_bit_bytes_equal_bitsandbytes_tensors(
    inputs: int, outputs: int, quant_type: str, double: bool
) -> None:
    matrix, stored = WeightMatrix("m", inputs, outputs), bits(Storage.nf4, double)
    measured = measured_4bit(torch.randn(outputs, inputs), quant_type, double)
    assert measured == (
        weight_bytes(inputs * outputs, stored),
        stored.constant_bytes(matrix),
        stored.table_bytes,
    )
    assert linear_bytes([matrix] * 2, stored) == 2 * sum(measured) - measured[2]


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_int8_bytes_equal_bitsandbytes_tensors(inputs: int, outputs: int) -> None:
    matrix = WeightMatrix("m", inputs, outputs)
    codes, scales, _ = bnb.int8_vectorwise_quant(torch.randn(outputs, inputs).half())
    assert linear_bytes([matrix], INT8) == codes.nbytes + scales.nbytes
    assert INT8.constant_bytes(matrix) == scales.nbytes
    bits = 8 * (codes.nbytes + scales.nbytes) / codes.numel()
    assert INT8.asymptotic(inputs) == pytest.approx(bits)
