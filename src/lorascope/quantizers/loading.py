"""The base in one mode: quantized once, saved, and loaded the same way by every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorascope.bases.folder import runs_own_code
from lorascope.bases.weights import refuse_misfit
from lorascope.config import Precision, QuantConfig, Storage
from lorascope.errors import ModelError
from lorascope.machine.devices import TORCH_DTYPES, Device, compute_precision
from lorascope.machine.libraries import quiet_libraries

FLAG = "support_avx512bf16_for_cpu"
FLOATING = (Storage.float32, Storage.bfloat16, Storage.float16)
FOUR_BIT = (Storage.nf4, Storage.fp4)


def unquantized_dtype(quant: QuantConfig, base_dtype: torch.dtype) -> torch.dtype:
    """Stored type of what is not quantized: the mode's own, else 16 bits in the base's family."""
    if quant.storage in FLOATING:
        return TORCH_DTYPES[quant.storage.value]
    return torch.bfloat16 if base_dtype is torch.bfloat16 else torch.float16


def bitsandbytes_config(quant: QuantConfig, compute: torch.dtype) -> BitsAndBytesConfig | None:
    """What transformers needs to quantize on load; None for plain floating-point storage."""
    if quant.storage is Storage.int8:
        return BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=quant.int8_outlier_threshold
        )
    if quant.storage in FOUR_BIT:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quant.storage.value,
            bnb_4bit_use_double_quant=quant.double_quantization,
            bnb_4bit_compute_dtype=compute,
        )
    return None


def quantize_base(base: Path, quant: QuantConfig, device: Device, target: Path) -> None:
    """Write `base` in the mode `quant` to `target`: it then loads without quantizing again."""
    quiet_libraries()
    require_quantizable(base, quant)
    stored = unquantized_dtype(quant, base_dtype(base))
    model, info = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=stored,
        device_map={"": device.kind},
        quantization_config=bitsandbytes_config(quant, stored),
        use_safetensors=True,
        trust_remote_code=runs_own_code(base),
        output_loading_info=True,
    )
    # prepare-base has judged the files; what it was not made for must not become random either.
    refuse_misfit(str(base), type(model).__name__, sorted(info["missing_keys"]), ())
    _refuse_repacking(model)
    model.save_pretrained(target)


def require_quantizable(base: Path, quant: QuantConfig) -> None:
    """Raise ModelError where a mode would store nothing, or another layer's form.

    bitsandbytes stores GPT-2's Conv1D transposed, so that errors and merges would not fit; and it
    takes torch's own Linear alone, so that 16 bits would be stored under another name.
    """
    if quant.storage in FLOATING:
        return
    config = AutoConfig.from_pretrained(base, trust_remote_code=runs_own_code(base))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=runs_own_code(base))
    modules = dict(model.named_modules())
    transposed = [name for name, module in modules.items() if isinstance(module, Conv1D)]
    if transposed:
        raise ModelError(
            f"quant={quant.name}: {transposed[0]} and {len(transposed) - 1} more layers of this "
            "model are Conv1D, which bitsandbytes stores transposed; 8 and 4 bits are not "
            "supported for it. Use quant=fp16, bf16 or fp32."
        )
    head = model.get_output_embeddings()
    if not any(type(module) is nn.Linear and module is not head for module in modules.values()):
        raise ModelError(
            f"quant={quant.name}: bitsandbytes quantizes no layer of {type(model).__name__}: it "
            "takes torch's own Linear, not subclasses of it, nor experts' 3-D parameters. The mode "
            "would weigh as much as 16 bits, here and wherever else the model is loaded. Leave it "
            "out of quant: use fp16, bf16 or fp32."
        )


def base_dtype(base: Path) -> torch.dtype:
    """The type that the full-precision base is stored in."""
    dtype = AutoConfig.from_pretrained(base, trust_remote_code=runs_own_code(base)).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def load_base(
    folder: Path, quant: QuantConfig, device: Device, attention: str = "auto"
) -> PreTrainedModel:
    """The stored base, frozen, in evaluation mode, ready to compute in the mode's precision.

    Raises:
        ModelError: the folder holds no such model, or lacks weights.
    """
    quiet_libraries()
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no base here. Run `lorascope quantize-base` first.")
    compute = TORCH_DTYPES[compute_precision(quant, device).value]
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=compute,
        device_map={"": device.kind},
        attn_implementation=None if attention == "auto" else attention,
        use_safetensors=True,
        trust_remote_code=runs_own_code(folder),
        output_loading_info=True,
    )
    refuse_misfit(str(folder), type(model).__name__, sorted(info["missing_keys"]), ())
    _refuse_repacking(model)
    _compute_in(model, compute)
    _cast_unquantized(model, compute)
    share_lookup_tables(model)
    model.requires_grad_(False)
    return model.eval()


def _refuse_repacking(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for a CPU kernel during evaluation.

    The repack happens in place, and a later backward pass reads the packed bytes as plain NF4:
    gradients are silently wrong (bitsandbytes 0.50.2, `Linear4bit.forward`).
    """
    for module in model.modules():
        if hasattr(module, FLAG):
            setattr(module, FLAG, False)


def _compute_in(model: nn.Module, compute: torch.dtype) -> None:
    """Make 4-bit layers compute in `compute`, whatever the folder was quantized with."""
    for module in model.modules():
        if hasattr(module, "compute_dtype") and hasattr(module, "compute_type_is_set"):
            layer: Any = module
            layer.compute_dtype = compute
            layer.compute_type_is_set = True


def _cast_unquantized(model: nn.Module, compute: torch.dtype) -> None:
    """Bring embeddings, norms and head to the compute type: transformers leaves those of a
    pre-quantized model in their stored type, whatever `dtype` it is asked for."""
    for module in model.modules():
        if is_quantized(module):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(compute)


def share_lookup_tables(model: nn.Module) -> None:
    """Let all 4-bit layers share one copy of each code table, which has the same values in each.

    A nested table takes 1 KiB a layer, more than double quantization saves on a small layer.
    """
    tables: dict[tuple[float, ...], torch.Tensor] = {}
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            if state.code is not None:
                state.code = tables.setdefault(tuple(state.code.tolist()), state.code)
            state = getattr(state, "state2", None)


def is_quantized(module: nn.Module) -> bool:
    """Whether a layer's weight is stored in 8 or 4 bits."""
    weight = getattr(module, "weight", None)
    return type(weight).__name__ in ("Params4bit", "Int8Params")


def arithmetic(model: nn.Module) -> str | None:
    """What the quantized layers compute with, in words; None where there are none.

    As measured with bitsandbytes 0.50.2 (tests/test_quantization.py).
    """
    for module in model.modules():
        if not is_quantized(module):
            continue
        # PEFT's layers show the weight of the layer that they adapt.
        layer: Any = getattr(module, "base_layer", module)
        state = getattr(layer.weight, "quant_state", None)
        if state is not None:
            backward = precision_name(state.dtype)
            return (
                "4-bit weights are dequantized to the compute type in forward passes, and rounded "
                f"to {backward} in backward passes"
            )
        when = " in evaluation, not in training steps" if layer.weight.device.type == "cpu" else ""
        return (
            "inputs are rounded to float16 and to 8 bits a token, outlier columns (from "
            f"{layer.state.threshold:g} on) apart,{when}"
        ).rstrip(",")
    return None


def precision_name(dtype: torch.dtype) -> str:
    """`torch.float16` -> 'float16'."""
    return Precision(str(dtype).removeprefix("torch.")).value
