"""w8a8: torchao's own quantized model to the bit, stored, loaded, calibrated and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8StaticActivationInt8WeightConfig,
    MappingType,
    quantize_,
)
from torchao.quantization.granularity import PerRow, PerTensor
from transformers import AutoModelForCausalLM

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.config import Config, Observer, Precision, QuantConfig, Storage
from lorascope.config.rules import validate
from lorascope.data.calibration import CalibrationRows, calibration_rows
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError, ModelError, RecordError
from lorascope.files.calibration import FILES, read_beside_model
from lorascope.files.layout import Layout
from lorascope.files.store import sha256_of_files
from lorascope.quantizers.bits import linear_bytes
from lorascope.quantizers.footprint import measure_footprint
from lorascope.quantizers.kinds import QUANTIZERS, quantized_layers, require_readable
from lorascope.quantizers.loading import load_base, load_exact, quantize_base
from lorascope.records import CalibrationRecord
from lorascope.stages import quantize_base as stage
from tests.conftest import save_small_model
from tests.devices import CPU

DYNAMIC = QuantConfig("w8a8_dynamic", Storage.w8a8_dynamic)
STATIC = QuantConfig("w8a8_static", Storage.w8a8_static)
IDS = torch.randint(3, 100, (4, 12), generator=torch.Generator().manual_seed(1))


def rows(count: int = 16, tokens: int = 24) -> CalibrationRows:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(3, 100, (count, tokens), generator=generator)
    return CalibrationRows(drawn.tolist(), "digest")


def observed(observer: Observer) -> QuantConfig:
    return QuantConfig("w8a8_static", Storage.w8a8_static, observer=observer)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("w8a8") / "base"
    save_small_model(folder)
    return folder


@pytest.fixture(scope="module")
def stored(base: Path) -> Path:
    """The folder in which both modes are stored, by their names."""
    for quant in (DYNAMIC, STATIC):
        given = rows() if quant is STATIC else None
        quantize_base(base, quant, CPU, base.parent / quant.name, given)
    return base.parent


def torchao_model(base: Path, record: CalibrationRecord | None) -> nn.Module:
    """The base as torchao's `quantize_` makes it, all else in the 16 bits that it is stored in."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if "proj" not in name:
            parameter.data = parameter.data.half().float()
    if record is None:
        quantize_(model, Int8DynamicActivationInt8WeightConfig(version=2), filter_fn=_is_proj)
        return model
    for own in record.layers:
        config = Int8StaticActivationInt8WeightConfig(
            act_quant_scale=torch.full((1, 1, 1), own.scale),
            act_quant_zero_point=torch.full((1, 1, 1), own.zero_point, dtype=torch.int8),
            granularity=[PerTensor(), PerRow()],
            act_mapping_type=MappingType.ASYMMETRIC,
        )
        quantize_(model, config, filter_fn=lambda _, path, name=own.name: path == name)
    return model


def _is_proj(_: nn.Module, name: str) -> bool:
    return name.endswith("_proj")


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    result: Tensor = model(input_ids=IDS).logits
    return result


def relative_error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt())


@pytest.mark.parametrize("quant", [DYNAMIC, STATIC], ids=lambda quant: quant.name)
def test_loaded_models_give_the_logits_of_torchaos_own_to_the_bit(
    base: Path, stored: Path, quant: QuantConfig, tmp_path: Path
) -> None:
    record = read_beside_model(stored / quant.name, CalibrationRecord) if quant is STATIC else None
    loaded = load_base(stored / quant.name, quant, CPU)
    assert torch.equal(logits(loaded), logits(torchao_model(base, record)))
    exact = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    error = relative_error(logits(loaded), logits(exact))
    assert 0.01 < error < {DYNAMIC.name: 0.04, STATIC.name: 0.07}[quant.name]
    loaded.save_pretrained(tmp_path)
    again = load_base(tmp_path, quant, CPU)
    assert torch.equal(logits(again), logits(loaded))
    weights = load_base(stored / quant.name, quant, CPU).state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("quant", [DYNAMIC, STATIC], ids=lambda quant: quant.name)
def test_files_are_the_same_twice_and_hold_codes_and_float32_constants(
    base: Path, stored: Path, quant: QuantConfig, tmp_path: Path
) -> None:
    quantize_base(base, quant, CPU, tmp_path, rows() if quant is STATIC else None)
    assert sha256_of_files(tmp_path) == sha256_of_files(stored / quant.name)
    held = load_file(tmp_path / "model.safetensors")
    path = "model.layers.0.mlp.down_proj."
    own = {name.removeprefix(path): t.dtype for name, t in held.items() if name.startswith(path)}
    expected = {"weight": torch.int8, "scales": torch.float32}
    if quant is STATIC:
        expected |= {"input_scale": torch.float32, "input_zero_point": torch.int8}
    assert own == expected
    sixteen = QuantConfig(quant.name, quant.storage, compute=Precision.bfloat16)
    layer: Any = load_base(tmp_path, sixteen, CPU).get_submodule(path.rstrip("."))
    assert torch.equal(layer.scales, held[path + "scales"])


@pytest.mark.parametrize("quant", [DYNAMIC, STATIC], ids=lambda quant: quant.name)
def test_bytes_from_shapes_are_the_stored_ones(stored: Path, quant: QuantConfig) -> None:
    model = load_base(stored / quant.name, quant, CPU)
    footprint = measure_footprint(model)
    counted = linear_bytes(
        [layer for _, layer, _ in quantized_layers(model)], QUANTIZERS[quant.storage].bits(quant)
    )
    measured = footprint.quantized_weight_bytes + footprint.quantization_constant_bytes
    assert counted == measured
    assert footprint.quantized_parameters == 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)


def test_exact_loading_rounds_weights_and_no_inputs(base: Path, stored: Path) -> None:
    model = load_exact(stored / "w8a8_dynamic", DYNAMIC, CPU)
    assert not list(quantized_layers(model))
    exact = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    weights_alone = relative_error(logits(model), logits(exact))
    both = relative_error(logits(load_base(stored / "w8a8_dynamic", DYNAMIC, CPU)), logits(exact))
    assert 0.002 < weights_alone < both


def test_each_observer_covers_the_range_that_it_says(base: Path, tmp_path: Path) -> None:
    records = {}
    for observer in Observer:
        quantize_base(base, observed(observer), CPU, tmp_path / observer, rows())
        records[observer] = read_beside_model(tmp_path / observer, CalibrationRecord)
    whole, cut, least = (records[o] for o in (Observer.min_max, Observer.percentile, Observer.mse))
    assert whole.clipped_share == 0
    assert cut.clipped_share == pytest.approx(0.001, rel=0.25)
    assert (whole.percentile, cut.percentile) == (None, 99.9)
    for all_, found in zip(whole.layers, least.layers, strict=True):
        assert found.mean_squared_error <= all_.mean_squared_error
        assert found.observed_min == all_.observed_min
    assert sum(o.mean_squared_error for o in least.layers) < 0.97 * sum(
        o.mean_squared_error for o in whole.layers
    )


def test_ranges_are_those_of_the_inputs_by_hand(base: Path, stored: Path) -> None:
    """The norm's outputs of the first layer, each row alone, and torch's own arithmetic."""
    record = read_beside_model(stored / "w8a8_static", CalibrationRecord)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    first = model.model.layers[0].input_layernorm
    with torch.no_grad():
        ids = torch.tensor(rows().token_ids)
        inputs = first(model.model.embed_tokens(ids))
    own = record.layers[0]
    assert own.name == "model.layers.0.self_attn.q_proj"
    assert own.values == inputs.numel()
    assert record.tokens == ids.numel()
    low, high = float(inputs.min()), float(inputs.max())
    assert (own.observed_min, own.observed_max) == pytest.approx((low, high), rel=1e-6)
    assert own.scale == pytest.approx((high - low) / 255, rel=1e-6)
    assert own.zero_point == -128 - round(low / own.scale)
    codes = (inputs / own.scale).round() + own.zero_point
    given_back = (codes.clamp(-128, 127) - own.zero_point) * own.scale
    by_hand = float((given_back - inputs).pow(2).mean())
    assert own.mean_squared_error == pytest.approx(by_hand, rel=1e-4)
    # No more than half a step lies beyond the codes.
    for end, covered in zip((low, high), own.covered, strict=True):
        assert abs(end - covered) < 0.501 * own.scale
    weight = model.get_submodule(own.name).weight.detach()
    assert (own.weight_min, own.weight_max) == (float(weight.min()), float(weight.max()))


def test_an_outlier_is_what_min_max_and_mse_cover_and_the_logits_pay_for(tmp_path: Path) -> None:
    """A neuron of the first MLP is thirty times as active, and is read a thirtieth as much."""
    save_small_model(tmp_path / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3] *= 30
        model.model.layers[0].mlp.down_proj.weight[:, 3] /= 30
    model.save_pretrained(tmp_path / "base")
    exact, errors, inputs = logits(model.eval()), {}, {}
    for observer in Observer:
        folder = tmp_path / observer
        quantize_base(tmp_path / "base", observed(observer), CPU, folder, rows())
        errors[observer.value] = relative_error(logits(load_base(folder, STATIC, CPU)), exact)
        (down,) = (
            own
            for own in read_beside_model(folder, CalibrationRecord).layers[:7]
            if "down" in own.name
        )
        inputs[observer.value] = down.relative_rmse
    quantize_base(tmp_path / "base", DYNAMIC, CPU, tmp_path / "by_token")
    by_token = relative_error(logits(load_base(tmp_path / "by_token", DYNAMIC, CPU)), exact)
    assert by_token < 0.6 * errors["percentile"] < 0.6 * 0.4 * errors["mse"]
    assert errors["mse"] < errors["min_max"]
    # The error of inputs says the contrary: the outlier is most of their squares.
    assert inputs["mse"] < inputs["min_max"] < 0.3 * inputs["percentile"]


def test_rows_of_train_are_chosen_whatever_their_order(project: Layout) -> None:
    train = read_rows(project.data("small", "toy") / "train.jsonl")
    tokenizer = load_tokenizer(project.base("small"))
    chosen = calibration_rows(train, tokenizer, 8)
    assert calibration_rows(train[::-1], tokenizer, 8) == chosen
    assert len(chosen.token_ids) == 8
    assert chosen.token_ids[0] == tokenizer(min(train, key=lambda row: row.item).text)["input_ids"]
    assert calibration_rows(train, tokenizer, 9).sha256 != chosen.sha256
    assert len(calibration_rows(train, tokenizer, 10_000).token_ids) == len(train)


def test_training_on_rounded_inputs_is_refused_with_the_way_to_serve(stored: Path) -> None:
    for quant in (DYNAMIC, STATIC):
        with pytest.raises(ConfigError, match=rf"for serving.*serve={quant.name}"):
            QUANTIZERS[quant.storage].require_trainable(LoraConfig(), "cpu")
        # Declaring, planning and checking ask this one.
        with pytest.raises(ConfigError, match=rf"for serving.*serve={quant.name}"):
            require_readable(LoraConfig(), quant)
    layer: Any = load_base(stored / "w8a8_dynamic", DYNAMIC, CPU).model.layers[0].mlp.up_proj
    with pytest.raises(ModelError, match=r"no gradient passes"):
        layer(torch.randn(2, 64, requires_grad=True))


def test_rows_are_needed_by_static_inputs_and_refused_elsewhere(
    base: Path, project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"rows of train.*serve=w8a8_static"):
        stage.command([compose("quant=w8a8_static")], project)
    assert not project.quantized("small", "w8a8_static").exists()
    with pytest.raises(ConfigError, match=r"reads none"):
        quantize_base(base, DYNAMIC, CPU, tmp_path / "out", rows())
    with pytest.raises(RecordError, match=r"no such record here"):
        read_beside_model(tmp_path, CalibrationRecord)
    (tmp_path / FILES[CalibrationRecord]).write_text("{}")
    with pytest.raises(RecordError, match=r"not a readable CalibrationRecord"):
        read_beside_model(tmp_path, CalibrationRecord)


@pytest.mark.parametrize(
    ("quant", "told"),
    [
        (QuantConfig("q", observer=Observer.mse), r"quant\.observer='mse'"),
        (QuantConfig("q", calibration_rows=8), r"quant\.calibration_rows=8"),
        (QuantConfig("q", Storage.w8a8_static, percentile=99.0), r"quant\.percentile=99\.0"),
        (QuantConfig("q", Storage.w8a8_static, percentile=100.0), r"must lie in \[90, 100\)"),
    ],
)
def test_settings_of_calibration_are_refused_where_nothing_reads_them(
    quant: QuantConfig, told: str, compose: Callable[..., Config]
) -> None:
    config = compose("quant=fp16")
    with pytest.raises(ConfigError, match=told):
        validate(Config(**{**vars(config), "quant": quant}))


def test_only_what_is_read_makes_another_stored_model() -> None:
    settings = QUANTIZERS[Storage.w8a8_static].settings
    assert settings(STATIC) == {"observer": "min_max", "calibration_rows": 64}
    assert settings(observed(Observer.percentile))["percentile"] == 99.9
    assert QUANTIZERS[Storage.w8a8_dynamic].settings(DYNAMIC) == {}
