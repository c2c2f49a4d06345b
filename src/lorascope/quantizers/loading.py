"""The base in one mode: quantized once, saved, and loaded the same way by every stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from lorascope.adapters.class_head import head_names
from lorascope.adapters.placement import Placement, connect_layers
from lorascope.bases.class_base import empty_class_base
from lorascope.bases.folder import runs_own_code
from lorascope.bases.heads import auto_class, class_of, gives_classes
from lorascope.bases.weights import refuse_misfit
from lorascope.config import OBSERVED, ModelConfig, Precision, QuantConfig
from lorascope.data.calibration import CalibrationRows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError, DeviceError, ModelError
from lorascope.files.calibration import write_beside_model
from lorascope.machine.devices import TORCH_DTYPES, Device
from lorascope.machine.libraries import import_uncollected, quiet_libraries
from lorascope.quantizers.autoround.library import require_library
from lorascope.quantizers.kinds import (
    PLAIN,
    QUANTIZERS,
    precision_on,
    quantized_layers,
    quantizer_of,
)
from lorascope.quantizers.placing import device_map, placement_over
from lorascope.quantizers.torchao.ranges import Ranges

if TYPE_CHECKING:
    from lorascope.quantizers.autoround.codes import ChosenCodes


def unquantized_dtype(quant: QuantConfig, base_dtype: torch.dtype) -> torch.dtype:
    """Stored type of what is not quantized: the mode's own, else 16 bits in the base's family."""
    if quant.storage.value in TORCH_DTYPES:
        return TORCH_DTYPES[quant.storage.value]
    return torch.bfloat16 if base_dtype is torch.bfloat16 else torch.float16


def quantize_base(
    base: Path,
    quant: QuantConfig,
    device: Device,
    target: Path,
    calibration: CalibrationRows | None = None,
) -> None:
    """Write `base` in the mode `quant` to `target`: it then loads without quantizing again.

    Args:
        calibration: rows of train on which the inputs of layers are observed, or codes chosen; a
            mode that `reads_rows` needs them, and lays their record beside the model.

    Raises:
        ConfigError: rows are missing, or the mode reads none; or a library is missing.
        ModelError: the mode would store nothing, or another layer's form.
    """
    quiet_libraries()
    require_library(quant)
    require_calibration(quant, calibration)
    require_quantizable(base, quant)
    stored = unquantized_dtype(quant, base_dtype(base))
    found = None if calibration is None else _read_rows(base, quant, device, calibration)
    loading = QUANTIZERS[quant.storage].loading(quant, stored, _class_heads(base))
    # Nothing is computed on it, so that its layers need not be connected.
    places, _ = places_of(base, quant, device.places or (device.kind,))
    model = _plain_base(base, stored, places, loading)
    if found is not None:
        found.put(model)
    model.save_pretrained(target)
    if found is not None:
        write_beside_model(target, found.record)


def _plain_base(
    base: Path, dtype: torch.dtype, places: dict[str, str], quantization: Any = None
) -> PreTrainedModel:
    """The base of a folder of plain weights, quantized on loading where that is asked for.

    Args:
        places: the device of each module, or of all under "".
    """
    model, info = class_of(base).from_pretrained(
        base,
        dtype=dtype,
        device_map=places,
        quantization_config=quantization,
        use_safetensors=True,
        trust_remote_code=runs_own_code(base),
        output_loading_info=True,
    )
    # prepare-base has judged the files; what it was not made for must not become random either.
    refuse_misfit(str(base), type(model).__name__, sorted(info["missing_keys"]), ())
    loaded: PreTrainedModel = model
    return loaded


def _read_rows(
    base: Path, quant: QuantConfig, device: Device, rows: CalibrationRows
) -> Ranges | ChosenCodes:
    """What a mode learns from `rows`: ranges in the type that products run in, codes in float32."""
    if quant.storage in OBSERVED:
        from lorascope.quantizers.linear_layers import quantizable_layers
        from lorascope.quantizers.torchao.calibration import calibrate

        compute = TORCH_DTYPES[compute_precision(quant, device).value]
        model = _plain_base(base, compute, {"": device.kind}).eval()
        names = list(quantizable_layers(model, quant, "torchao"))
        return Ranges(calibrate(model, names, rows, quant))
    # Before the model is made. auto-round has garbage collected at each of its steps.
    import_uncollected("auto_round")
    from lorascope.quantizers.autoround.codes import choose_codes

    model = _plain_base(base, torch.float32, {"": device.kind}).eval()
    scale_dtype = unquantized_dtype(quant, base_dtype(base))
    return choose_codes(model, load_tokenizer(base), rows, quant, scale_dtype)


def require_calibration(quant: QuantConfig, calibration: CalibrationRows | None) -> None:
    """Raise ConfigError where a mode lacks the rows that it needs, or would not read them."""
    if quant.reads_rows and (calibration is None or not calibration.token_ids):
        raise ConfigError(
            "quant", quant.name,
            "it is made with the help of rows of train, and none are given here",
            f"Serve a merged model so: serve={quant.name}. quant={_rowless(quant)} needs no rows.",
        )  # fmt: skip
    if not quant.reads_rows and calibration is not None:
        raise ConfigError(
            "quant", quant.name, "rows are given to calibrate it with, and it reads none",
            "Leave the rows out, or use w8a8_static or int4_autoround.",
        )  # fmt: skip


def _rowless(quant: QuantConfig) -> str:
    """The nearest mode that a base is stored in."""
    return "w8a8_dynamic" if quant.storage in OBSERVED else quant.storage.value


def _class_heads(base: Path) -> list[str]:
    """Modules of the base's head for classes, which no mode quantizes; none without one."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=runs_own_code(base))
    return head_names(_empty(base)) if gives_classes(config) else []


def require_quantizable(base: Path, quant: QuantConfig, model: ModelConfig | None = None) -> None:
    """Raise ModelError where a mode would store nothing, or another layer's form.

    Args:
        model: what the base is yet to become, where `base` is the model as it was given.
    """
    with torch.device("meta"):
        if model is not None and model.classes is not None:
            empty = empty_class_base(base, model)
        else:
            empty = _empty(base)
        QUANTIZERS[quant.storage].put_fake_layers(empty, quant, torch.float32)


def base_dtype(base: Path) -> torch.dtype:
    """The type that the full-precision base is stored in."""
    dtype = AutoConfig.from_pretrained(base, trust_remote_code=runs_own_code(base)).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def load_base(
    folder: Path,
    quant: QuantConfig,
    device: Device,
    attention: str = "auto",
    place: str | None = None,
) -> PreTrainedModel:
    """The stored base, frozen, in evaluation mode, ready to compute in the mode's precision.

    Args:
        place: the kind of device to put it on, where that is not yet `device`.

    Raises:
        ModelError: the folder holds no such model, lacks weights, or holds some of another mode.
    """
    compute = TORCH_DTYPES[compute_precision(quant, device).value]
    devices = device.places or (place or device.kind,)
    model = _load(folder, quant, devices, compute, attention)
    QUANTIZERS[quant.storage].prepare(model, compute)
    _cast_unquantized(model, compute)
    model.requires_grad_(False)
    return model.eval()


def load_exact(
    folder: Path, quant: QuantConfig, device: Device, attention: str = "auto"
) -> PreTrainedModel:
    """The stored base as `load_base` gives it, computing in float32 with the very weights that are
    stored: layers that would round their inputs are plain ones."""
    exact = replace(quant, compute=Precision.float32)
    model = load_base(folder, exact, device, attention)
    if QUANTIZERS[quant.storage].rounds_inputs:
        for name in [name for name, _, _ in quantized_layers(model)]:
            model.set_submodule(name, _plain_linear(model.get_submodule(name)))
    return model


def load_stored(folder: Path, quant: QuantConfig) -> PreTrainedModel:
    """The stored base on the CPU, to be read and not to compute: nothing is cast, so that
    most of it stays in its files until it is read. It refuses what `load_base` does."""
    model = _load(folder, quant, ("cpu",), "auto")
    QUANTIZERS[quant.storage].prepare(model, torch.float32)
    return model.requires_grad_(False).eval()


def _load(
    folder: Path,
    quant: QuantConfig,
    devices: Sequence[str],
    dtype: torch.dtype | Literal["auto"],
    attention: str = "auto",
) -> PreTrainedModel:
    """The model in `folder`, which must be whole and of the mode `quant`; its layers are placed
    over several devices."""
    quiet_libraries()
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no base here. Run `lorascope quantize-base` first.")
    quantizer = QUANTIZERS[quant.storage]
    # Before anything is read: a method that is not transformers' own registers itself here.
    is_packed = quantizer.loading(quant, torch.float32) is not None
    places, placement = places_of(folder, quant, devices)
    model, info = class_of(folder).from_pretrained(
        folder,
        dtype=dtype,
        device_map=places,
        attn_implementation=None if attention == "auto" else attention,
        use_safetensors=True,
        trust_remote_code=runs_own_code(folder),
        output_loading_info=True,
    )
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    refuse_misfit(str(folder), type(model).__name__, missing, unexpected)
    if is_packed and not any(quantizer.owns(layer) for layer in model.modules()):
        raise ModelError(
            f"{folder}: no layer of it is stored as quant={quant.name} says, so that its weights "
            "would be read as plain numbers. Make it again with `lorascope quantize-base`."
        )
    if placement is not None:
        connect_layers(model, placement)
    loaded: PreTrainedModel = model
    return loaded


def places_of(
    folder: Path, quant: QuantConfig, devices: Sequence[str]
) -> tuple[dict[str, str], Placement | None]:
    """The device of each module of the model in `folder`, as it is loaded, and what
    `connect_layers` needs afterwards; None where one device takes all."""
    if len(devices) == 1:
        return {"": devices[0]}, None
    empty = _empty(folder)
    placement = placement_over(empty, quant, devices)
    return device_map(empty, placement), placement


def _empty(folder: Path) -> PreTrainedModel:
    """The model of a folder's config.json on the meta device, in full precision."""
    own_code = runs_own_code(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=own_code)
    with torch.device("meta"):
        empty: PreTrainedModel = auto_class(config).from_config(config, trust_remote_code=own_code)
    return empty


def _plain_linear(layer: Any) -> nn.Linear:
    """A layer of the weight and bias that a quantized one stands for, in float32."""
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    weight = quantizer_of(layer).weight(layer)
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().float(), requires_grad=False)
    return plain.eval()


def compute_precision(quant: QuantConfig, device: Device) -> Precision:
    """The type that matrix products run in on a device that is here (see `precision_on`); where it
    cannot compute in the type asked for, DeviceError."""
    cuda = device.kind == "cuda"
    has_bfloat16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    if quant.compute is Precision.bfloat16 and cuda and not has_bfloat16:
        raise DeviceError(f"quant.compute='bfloat16': {device.name} has no bfloat16. Use float16.")
    if quant.compute is Precision.float16 and device.kind == "cpu":
        raise DeviceError(
            "quant.compute='float16': training in float16 needs a loss scaler, which is for "
            "CUDA only. Use float32 or bfloat16 on a CPU."
        )
    return precision_on(quant, device.kind, has_bfloat16)


def _cast_unquantized(model: nn.Module, compute: torch.dtype) -> None:
    """Bring embeddings, norms and head to the compute type: transformers leaves those of a
    pre-quantized model in their stored type, whatever `dtype` it is asked for."""
    for module in model.modules():
        if quantizer_of(module) is not PLAIN:
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(compute)


def arithmetic(model: nn.Module) -> str | None:
    """Arithmetic of the quantized layers, in words; None where there are none."""
    found = next(quantized_layers(model), None)
    return None if found is None else found[2].arithmetic(found[1])
