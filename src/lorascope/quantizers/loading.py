"""The base in one mode: quantized once, saved, and loaded the same way by every stage."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lorascope.bases.folder import runs_own_code
from lorascope.bases.weights import refuse_misfit
from lorascope.config import Precision, QuantConfig
from lorascope.errors import DeviceError, ModelError
from lorascope.machine.devices import TORCH_DTYPES, Device
from lorascope.machine.libraries import quiet_libraries
from lorascope.quantizers.kinds import (
    PLAIN,
    QUANTIZERS,
    precision_on,
    quantized_layers,
    quantizer_of,
)


def unquantized_dtype(quant: QuantConfig, base_dtype: torch.dtype) -> torch.dtype:
    """Stored type of what is not quantized: the mode's own, else 16 bits in the base's family."""
    if quant.storage.value in TORCH_DTYPES:
        return TORCH_DTYPES[quant.storage.value]
    return torch.bfloat16 if base_dtype is torch.bfloat16 else torch.float16


def quantize_base(base: Path, quant: QuantConfig, device: Device, target: Path) -> None:
    """Write `base` in the mode `quant` to `target`: it then loads without quantizing again."""
    quiet_libraries()
    require_quantizable(base, quant)
    stored = unquantized_dtype(quant, base_dtype(base))
    model, info = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=stored,
        device_map={"": device.kind},
        quantization_config=QUANTIZERS[quant.storage].loading(quant, stored),
        use_safetensors=True,
        trust_remote_code=runs_own_code(base),
        output_loading_info=True,
    )
    # prepare-base has judged the files; what it was not made for must not become random either.
    refuse_misfit(str(base), type(model).__name__, sorted(info["missing_keys"]), ())
    model.save_pretrained(target)


def require_quantizable(base: Path, quant: QuantConfig) -> None:
    """Raise ModelError where a mode would store nothing, or another layer's form."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=runs_own_code(base))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=runs_own_code(base))
        QUANTIZERS[quant.storage].put_fake_layers(model, quant, torch.float32)


def base_dtype(base: Path) -> torch.dtype:
    """The type that the full-precision base is stored in."""
    dtype = AutoConfig.from_pretrained(base, trust_remote_code=runs_own_code(base)).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def load_base(
    folder: Path, quant: QuantConfig, device: Device, attention: str = "auto"
) -> PreTrainedModel:
    """The stored base, frozen, in evaluation mode, ready to compute in the mode's precision.

    Raises:
        ModelError: the folder holds no such model, lacks weights, or holds some of another mode.
    """
    quiet_libraries()
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no base here. Run `lorascope quantize-base` first.")
    compute = TORCH_DTYPES[compute_precision(quant, device).value]
    quantizer = QUANTIZERS[quant.storage]
    # Before anything is read: a method that is not transformers' own registers itself here.
    is_packed = quantizer.loading(quant, compute) is not None
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=compute,
        device_map={"": device.kind},
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
    quantizer.prepare(model, compute)
    _cast_unquantized(model, compute)
    model.requires_grad_(False)
    return model.eval()


def compute_precision(quant: QuantConfig, device: Device) -> Precision:
    """The type that matrix products run in on a device that is here (see `precision_on`).

    Raises:
        DeviceError: the device cannot compute in the type asked for.
    """
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
