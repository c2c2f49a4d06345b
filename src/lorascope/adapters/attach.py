"""The adapter on a base: made from our configuration, saved so that equal ones are equal files."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import torch
from peft import PeftModel
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

# PEFT loads adapters of methods that it knows.
import lorascope.adapters.bitfit.layer
import lorascope.adapters.bottleneck.layer
import lorascope.adapters.full.layer
import lorascope.adapters.prompts.prefix_layer
import lorascope.adapters.sparse.layer  # noqa: F401
from lorascope.adapters.class_head import (
    bare_module,
    draw_heads,
    head_names,
    wrapped_heads,
)
from lorascope.adapters.first_samples import FirstSamples
from lorascope.adapters.kinds import KINDS, kind_of
from lorascope.adapters.layers import every_part, model_parts
from lorascope.adapters.lora.reading import give_directions, measure_covariances
from lorascope.adapters.placement import placement_of
from lorascope.adapters.prompts.decoder import stand_in_front
from lorascope.adapters.stack import Weights, adapted_names, chosen_buffers, trained_parameters
from lorascope.adapters.targets import select
from lorascope.config import AdapterConfig
from lorascope.errors import ModelError
from lorascope.files.layout import ADAPTER_FILES
from lorascope.machine.devices import compute_type
from lorascope.records import LinearShape


def attach(model: PreTrainedModel, config: AdapterConfig, seed: int) -> PeftModel:
    """Put a new adapter on a frozen base. The seed is set right here, before the adapter's random
    matrices are drawn.

    Raises:
        ConfigError: the targets match no layer.
        ModelError: PEFT has no such adapter for these layers.
    """
    made = _peft_config(model, config)
    torch.manual_seed(seed)
    try:
        adapted = peft.get_peft_model(model, made)
    except (TypeError, ValueError, NotImplementedError) as error:
        words = " ".join(str(error).split())[:300]
        raise ModelError(
            f"adapter={config.kind}: PEFT cannot put it on this model ({words}). Choose other "
            f"layers with {config.kind}=modules {config.kind}.modules=[...], or another method."
        ) from error
    draw_heads(model)
    return _in_place(adapted)


def new_values(
    model: PreTrainedModel,
    config: AdapterConfig,
    seed: int,
    samples: FirstSamples | None = None,
) -> Weights:
    """The values that `attach` draws, of a method that takes them out of the base's weights; some
    read samples for it.

    Layer by layer, each with a copy of its weight for PEFT to change, in the form of a linear layer
    whatever the base's is: of Conv1D's PEFT (0.21) takes OLoRA's from the wrong side.
    """
    every = every_part(model)
    chosen: list[LinearShape] = select(model_parts(model), config)
    if samples is not None:
        measure_covariances(model, kind_of(config).peft(config, every, chosen), samples)
    torch.manual_seed(seed)
    values: dict[str, Tensor] = {}
    for layer in chosen:
        own = model.get_submodule(layer.name)
        copy = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        weight = own.weight.T if isinstance(own, Conv1D) else own.weight
        copy.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        model.set_submodule(layer.name, copy)
        made = kind_of(config).peft(config, every, [layer])
        if samples is not None:
            give_directions(model, layer.name, own, made)
        peft.inject_adapter_in_model(made, model)
        for name, value in model.get_submodule(layer.name).named_parameters():
            if value.requires_grad:
                values[f"{layer.name}.{name}"] = value.detach()
        model.set_submodule(layer.name, own)
        del model.peft_config
    return values


def attach_trained(
    model: PreTrainedModel, config: AdapterConfig, values: Weights, seed: int
) -> PeftModel:
    """Put a trained adapter on a frozen base, sharing memory with those of `values` that are on
    their layer's device: of kinds with a stack none are drawn, which takes seconds at high ranks,
    and of what replaces the base no second copy is made. PEFT (0.21) must draw for IA3 on INT8; and
    what it draws for others beside what is trained, such as SHiRA's masks, is the seed's again."""
    made = _peft_config(model, config.saved())
    undrawn = bool(kind_of(config).packed) or config.replaces
    if not undrawn:
        torch.manual_seed(seed)
    adapted = _in_place(peft.get_peft_model(model, made, low_cpu_mem_usage=undrawn))
    placement = placement_of(model)
    for name in trained_parameters(adapted):
        parent, _, own = name.rpartition(".")
        value = values[name] if placement is None else values[name].to(placement.device(name))
        model.get_submodule(parent).register_parameter(own, nn.Parameter(value))
    for name in chosen_buffers(adapted):
        parent, _, own = name.rpartition(".")
        model.get_submodule(parent).register_buffer(own, values[name])
    return adapted


def _peft_config(model: PreTrainedModel, config: AdapterConfig) -> peft.PeftConfig:
    made = kind_of(config).peft(config, every_part(model), select(model_parts(model), config))
    if heads := head_names(model):
        made.task_type, made.modules_to_save = "SEQ_CLS", heads
    return made


def detach(model: PeftModel) -> PreTrainedModel:
    """The base with its own layers again. PEFT itself (0.21) refuses that for some methods on a
    quantized base."""
    base: PreTrainedModel = model.get_base_model()
    for name in (*adapted_names(base), *wrapped_heads(base)):
        base.set_submodule(name, bare_module(base.get_submodule(name)))
    # PEFT marks no base that it puts a prompt in front of.
    vars(base).pop("peft_config", None)
    return base


def save_adapter(model: PeftModel, folder: Path, base_name: str) -> None:
    """Write an ordinary PEFT adapter: config and weights, nothing that names this machine.

    PEFT writes the base's path into config and model card, and target sets in an order that changes
    from process to process; all of it would make equal adapters differ.
    """
    # No embeddings are adapted: there are none to save, or to look up on the hub.
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base_name
    for key in ("target_modules", "feedforward_modules"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    if isinstance(config.get("modules_to_save"), list):
        # PEFT adds its own names for heads each time that it makes or reads one.
        config["modules_to_save"] = head_names(model.get_base_model())
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on a base, for evaluation; without weights in safetensors, where PEFT
    would take pickled ones, raise ModelError."""
    if not (folder / ADAPTER_FILES[1]).is_file():
        raise ModelError(
            f"{folder}: lacks {ADAPTER_FILES[1]}. Pickled weights are not read, as they can run "
            "code: delete the trial's folder and train it again."
        )
    model = _in_place(PeftModel.from_pretrained(base, folder).eval())
    if any(isinstance(layer, LNTuningLayer) for layer in model.modules()):
        # Read into copies of 16 bits, trained values were rounded.
        peft.set_peft_model_state_dict(model, load_file(folder / ADAPTER_FILES[1]))
    return model


def _in_place(model: PeftModel) -> PeftModel:
    """The model, whose base answers as it does, in the types that the bare one computes in."""
    return (
        stand_in_front(model) if model.active_peft_config.is_prompt_learning else _keep_types(model)
    )


def keeps_ties(folder: Path) -> bool:
    """Whether a saved adapter trained a tied head and embedding as one, in PEFT's own words."""
    config = json.loads((folder / ADAPTER_FILES[0]).read_text())
    return bool(config.get("ensure_weight_tying"))


def _keep_types(model: PeftModel) -> PeftModel:
    """Let adapted layers give the type that is computed in, as bare ones do: for some methods PEFT
    (0.21) gives float32 on a base that computes in 16 bits, and attention takes no two types.
    PEFT's copies of norms have the base's type, in which small steps would be lost."""
    kind = KINDS.get(str(model.peft_config["default"].peft_type).rpartition(".")[2].lower())
    if kind is None or not kind.packed:
        for layer in model.modules():
            if isinstance(layer, LNTuningLayer):
                for norm in layer.ln_tuning_layers.float().values():
                    norm.register_forward_pre_hook(_in_float32)
                layer.register_forward_hook(_as_given)
            elif isinstance(layer, BaseTunerLayer) and not getattr(layer, "keeps_types", False):
                layer.register_forward_hook(_in_compute_type)
    return model


def _in_float32(norm: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (given[0].float(), *given[1:])


def _as_given(layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> Tensor:
    return result.to(given[0].dtype)


def _in_compute_type(layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> Tensor:
    return result.to(compute_type(given[0]))
