"""The stored bases: bytes against arithmetic, weights against bitsandbytes, gradients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from lorascope.adapters.attach import attach
from lorascope.config import Config, DeviceKind, Precision, QuantConfig, Storage
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, tokenize_row
from lorascope.errors import DeviceError, ModelError
from lorascope.files.layout import Layout
from lorascope.files.store import read_record, sha256_of_files
from lorascope.machine.devices import Device, choose_device
from lorascope.quantizers.footprint import (
    layer_errors,
    measure_footprint,
    require_values_in_range,
)
from lorascope.quantizers.kinds import QUANTIZERS, quantizer_of
from lorascope.quantizers.loading import (
    arithmetic,
    compute_precision,
    load_base,
    quantize_base,
    unquantized_dtype,
)
from lorascope.records import FootprintRecord
from tests.conftest import MODES, save_small_model

CPU = Device("cpu", "cpu")


def footprint_of(project: Layout, mode: str) -> FootprintRecord:
    return read_record(project.quantized("small", mode), FootprintRecord)


def test_stored_bytes_fall_strictly_from_fp16_to_nf4_with_double_quantization(
    project: Layout,
) -> None:
    totals = [footprint_of(project, mode).total_bytes for mode in MODES[:4]]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(totals)


def test_nf4_bits_a_parameter_are_four_and_a_half(project: Layout) -> None:
    record = footprint_of(project, "nf4")
    assert all(layer.bits_per_parameter == 4.5 for layer in record.layers)
    table_bits = 8 * 16 * 4 / record.quantized_parameters  # one shared code table
    assert record.bits_per_quantized_parameter == pytest.approx(4.5 + table_bits, rel=1e-12)


def test_int8_has_one_float_scale_an_output_row(project: Layout) -> None:
    record = footprint_of(project, "int8")
    stored = load_file(project.quantized("small", "int8") / "model.safetensors")
    scales = [value for name, value in stored.items() if name.endswith("SCB")]
    assert record.quantization_constant_bytes == 4 * sum(scale.numel() for scale in scales)
    assert record.quantized_weight_bytes == record.quantized_parameters


def test_footprint_counts_the_parameters_that_packed_bytes_stand_for(project: Layout) -> None:
    exact = load_file(project.base("small") / "model.safetensors")
    expected = sum(value.numel() for name, value in exact.items() if "proj" in name)
    assert all(footprint_of(project, mode).quantized_parameters == expected for mode in MODES[1:])


def test_quantizing_twice_gives_the_same_files(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    for mode in MODES:
        again = tmp_path / mode
        quantize_base(project.base("small"), compose(f"quant={mode}").quant, CPU, again)
        weights = ("*.safetensors",)
        stored = project.quantized("small", mode)
        assert sha256_of_files(again, weights) == sha256_of_files(stored, weights)


@pytest.mark.parametrize("mode", ["nf4", "nf4_dq", "int8", "int4_sym"])
def test_training_after_an_evaluation_has_the_same_gradients(
    project: Layout, compose: Callable[..., Config], mode: str
) -> None:
    before = _gradients(project, compose(f"quant={mode}"), evaluate_first=False)
    after = _gradients(project, compose(f"quant={mode}"), evaluate_first=True)
    assert before.keys() == after.keys()
    assert any(float(gradient.abs().sum()) > 0 for gradient in before.values())
    for name, gradient in before.items():
        assert torch.equal(gradient, after[name]), name


def _gradients(project: Layout, config: Config, evaluate_first: bool) -> dict[str, torch.Tensor]:
    folder = project.quantized("small", config.quant.name)
    base = load_base(folder, config.quant, CPU)
    model = attach(base, config.adapter, seed=0)
    row = read_rows(project.data("small", "toy") / "train.jsonl")[0]
    ids, labels = (torch.tensor([part]) for part in tokenize_row(row, load_tokenizer(folder)))
    if evaluate_first:
        model.eval()
        with torch.no_grad():
            model(input_ids=ids)
    model.train()
    model(input_ids=ids, labels=labels).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_layer_errors_agree_with_an_independent_nf4(project: Layout) -> None:
    """NF4 by hand: per block of 64, scale by the largest magnitude, take the nearest code."""
    from bitsandbytes.functional import get_4bit_type

    name = "model.layers.0.mlp.up_proj.weight"
    exact = load_file(project.base("small") / "model.safetensors")[name].half().float()
    blocks = exact.reshape(-1, 64)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    codes = get_4bit_type("nf4", device="cpu").float()
    nearest = codes[(blocks / scales).unsqueeze(-1).sub(codes).abs().argmin(-1)]
    by_hand = (nearest * scales).reshape(exact.shape)
    stored = load_base(project.quantized("small", "nf4"), QuantConfig("nf4", Storage.nf4), CPU)
    layer = stored.get_submodule("model.layers.0.mlp.up_proj")
    ours = quantizer_of(layer).weight(layer)
    assert torch.allclose(ours, by_hand, atol=1e-6 * float(exact.abs().max()))


@pytest.mark.parametrize("intermediate", [172, 129])
def test_shapes_that_are_no_multiple_of_64_quantize_train_and_count(
    tmp_path: Path, intermediate: int
) -> None:
    save_small_model(tmp_path / "base", intermediate=intermediate)
    for double in (False, True):
        quant = QuantConfig("nf4", Storage.nf4, double_quantization=double)
        folder = tmp_path / f"nf4-{double}"
        quantize_base(tmp_path / "base", quant, CPU, folder)
        model = load_base(folder, quant, CPU)
        assert model(input_ids=torch.tensor([[3, 4, 5]])).logits.isfinite().all()
        footprint = measure_footprint(model)
        projections = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * intermediate)
        assert footprint.quantized_parameters == projections


def test_unquantized_parts_of_a_loaded_base_are_in_the_compute_type(project: Layout) -> None:
    for mode, storage in (("nf4", Storage.nf4), ("int8", Storage.int8), ("fp16", Storage.float16)):
        model = load_base(project.quantized("small", mode), QuantConfig(mode, storage), CPU)
        assert model.get_input_embeddings().weight.dtype is torch.float32
        assert model(input_ids=torch.tensor([[3, 4]])).logits.dtype is torch.float32


def test_codes_are_never_read_as_plain_weights(project: Layout, tmp_path: Path) -> None:
    """transformers leaves out what it has no place for, and would make numbers of the codes."""
    folder = tmp_path / "stored"
    shutil.copytree(project.quantized("small", "int8"), folder)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="have no place in it"):
        load_base(folder, QuantConfig("int8", Storage.int8), CPU)
    with pytest.raises(ModelError, match=r"no layer of it is stored as quant=nf4 says"):
        load_base(project.quantized("small", "fp16"), QuantConfig("nf4", Storage.nf4), CPU)


def test_lookup_tables_are_shared_between_layers(project: Layout) -> None:
    quant = QuantConfig("nf4_dq", Storage.nf4, double_quantization=True)
    model = load_base(project.quantized("small", "nf4_dq"), quant, CPU)
    states = [p.quant_state for p in model.parameters() if hasattr(p, "quant_state")]
    assert len({state.code.data_ptr() for state in states}) == 1
    assert len({state.state2.code.data_ptr() for state in states}) == 1


def test_transposed_layers_are_refused_in_8_and_4_bits_and_stored_in_16(tmp_path: Path) -> None:
    config = GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=64, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    for storage in (Storage.int8, Storage.nf4):
        with pytest.raises(ModelError, match=r"Conv1D.*quant=fp16"):
            quantize_base(tmp_path / "base", QuantConfig("q", storage), CPU, tmp_path / "out")
    plain = QuantConfig("fp16", Storage.float16)
    quantize_base(tmp_path / "base", plain, CPU, tmp_path / "out")
    assert load_base(tmp_path / "out", plain, CPU)(torch.tensor([[1, 2]])).logits.shape[-1] == 64


def test_cuda_that_is_not_there_is_refused_and_not_replaced() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match=r"runtime\.device='cuda'"):
        choose_device(DeviceKind.cuda)


def test_float16_compute_on_a_cpu_is_refused_and_not_replaced() -> None:
    quant = QuantConfig("fp16", Storage.float16, compute=Precision.float16)
    with pytest.raises(DeviceError, match=r"quant\.compute='float16'"):
        compute_precision(quant, CPU)


def layer_and_gradient(
    project: Layout, compose: Callable[..., Config], mode: str, training: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, result, gradients of both, and the exact weight of one layer."""
    model = load_base(project.quantized("small", mode), compose(f"quant={mode}").quant, CPU)
    layer = model.model.layers[0].mlp.up_proj.train(training)
    torch.manual_seed(0)
    x, gradient = torch.randn(5, 64, requires_grad=True), torch.randn(5, layer.out_features)
    result = layer(x)
    result.backward(gradient)
    assert x.grad is not None
    return x.detach(), result.detach(), x.grad, gradient, quantizer_of(layer).weight(layer)


@pytest.mark.parametrize("mode", ["nf4", "nf4_dq"])
def test_four_bits_are_read_exactly_forward_and_in_16_bits_backward(
    project: Layout, compose: Callable[..., Config], mode: str
) -> None:
    """What `arithmetic` says in each record, on a CPU that computes in FP32."""
    x, result, given, gradient, weight = layer_and_gradient(project, compose, mode, True)
    assert torch.allclose(result, x @ weight.T, atol=1e-5)
    rounded = weight.half().float()
    assert torch.allclose(given, gradient @ rounded, atol=1e-5)
    assert (given - gradient @ weight).abs().max() > 1e-4
    model = load_base(project.quantized("small", mode), compose(f"quant={mode}").quant, CPU)
    assert "rounded to float16 in backward passes" in str(arithmetic(model))


def test_both_passes_of_a_4_bit_layer_read_the_same_weights_on_cuda(
    project: Layout, compose: Callable[..., Config]
) -> None:
    """Shown on a CPU, which itself keeps bitsandbytes' second rounding."""
    quant, equal = compose("quant=nf4", "quant.compute=bfloat16").quant, {}
    for kind in ("cpu", "cuda"):
        model = load_base(project.quantized("small", "nf4"), quant, CPU)
        layer = model.model.layers[0].mlp.up_proj
        state, stored = layer.weight.quant_state, layer.weight.quant_state.dtype
        state.dtype = quantizer_of(layer).backward_dtype(kind, torch.bfloat16, stored)
        forward = layer(torch.eye(64, dtype=torch.bfloat16)).T
        x = torch.zeros(layer.out_features, 64, dtype=torch.bfloat16, requires_grad=True)
        layer(x).backward(torch.eye(layer.out_features, dtype=torch.bfloat16))
        assert x.grad is not None
        equal[kind] = torch.equal(x.grad, forward)
        said = quantizer_of(layer).arithmetic(layer)
        assert said.startswith("4-bit weights are dequantized to the compute type")
        assert ("rounded" in said) is (kind == "cpu")
    assert equal == {"cpu": False, "cuda": True}


def test_preparing_4_bit_layers_sets_their_backward_type_where_that_is_no_cpu() -> None:
    types = {}
    for device in ("cpu", "meta"):
        layer = Linear4bit(64, 2, bias=False, quant_type="nf4").to("cpu")
        state = layer.weight.quant_state
        codes = layer.weight.data.to(device)
        layer.weight = Params4bit(codes, False, quant_state=state, bnb_quantized=True)
        state.dtype = torch.float16
        QUANTIZERS[Storage.nf4].prepare(nn.Sequential(layer), torch.bfloat16)
        types[device] = state.dtype
    assert types == {"cpu": torch.float16, "meta": torch.bfloat16}


def test_int8_rounds_inputs_in_evaluation_and_not_in_training_steps(
    project: Layout, compose: Callable[..., Config]
) -> None:
    x, trained, _, _, weight = layer_and_gradient(project, compose, "int8", True)
    _, scored, _, _, _ = layer_and_gradient(project, compose, "int8", False)
    exact = x @ weight.T
    assert torch.allclose(trained, exact, atol=1e-5)
    assert 1e-3 < (scored - exact).abs().max() < 0.1
    model = load_base(project.quantized("small", "int8"), compose("quant=int8").quant, CPU)
    assert str(arithmetic(model)).endswith("apart, in evaluation, not in training steps")
    adapted = attach(model, compose("quant=int8").adapter, 0)
    assert arithmetic(adapted) == arithmetic(model)
    plain = load_base(project.quantized("small", "fp16"), compose("quant=fp16").quant, CPU)
    assert arithmetic(plain) is None


def overflowing(base: Path, name: str, dtype: torch.dtype) -> None:
    """A base of `dtype` of which one value is beyond float16."""
    save_small_model(base)
    AutoModelForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(base)
    tensors = load_file(base / "model.safetensors")
    tensors[name][2] = 1e5
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


NORM, MATRIX = "model.layers.1.input_layernorm.weight", "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("name", "dtype", "storage", "fits"),
    [
        (NORM, torch.bfloat16, Storage.float16, False),
        (NORM, torch.bfloat16, Storage.bfloat16, True),
        (NORM, torch.bfloat16, Storage.nf4, True),
        (NORM, torch.float32, Storage.nf4, False),
        (NORM, torch.float32, Storage.float32, True),
        (MATRIX, torch.bfloat16, Storage.nf4, True),
        (MATRIX, torch.float32, Storage.nf4, False),
        # bitsandbytes rounds a matrix to float16 on its way to 8 bits, whatever it was.
        (MATRIX, torch.bfloat16, Storage.int8, False),
    ],
)
def test_values_that_overflow_the_stored_type_are_refused_by_tensor(
    tmp_path: Path, name: str, dtype: torch.dtype, storage: Storage, fits: bool
) -> None:
    overflowing(tmp_path / "base", name, dtype)
    quant = QuantConfig("q", storage)
    quantize_base(tmp_path / "base", quant, CPU, tmp_path / "out")
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    kept = unquantized_dtype(quant, dtype)
    if fits:
        require_values_in_range(stored, "q", kept)
        return
    with pytest.raises(ModelError, match=rf"values of {name} overflow float16, .* 65,504"):
        require_values_in_range(stored, "q", kept)


def test_a_matrix_of_zeros_has_no_error_in_any_mode(tmp_path: Path) -> None:
    save_small_model(tmp_path / "base")
    exact = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    layer = "model.layers.0.mlp.down_proj"
    torch.nn.init.zeros_(exact.get_submodule(layer).weight)
    exact.save_pretrained(tmp_path / "base")
    for storage in (Storage.float16, Storage.int8, Storage.nf4):
        quantize_base(tmp_path / "base", QuantConfig("q", storage), CPU, tmp_path / "out")
        stored = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert layer_errors(exact, stored, [layer])[0].relative_rmse == 0.0
