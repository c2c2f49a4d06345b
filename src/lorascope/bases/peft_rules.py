"""What PEFT's methods make of a model by default, as PEFT itself makes it of the empty model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import peft
import torch
from peft.tuners.lora.layer import ParamWrapper
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from torch import nn

from lorascope.adapters.decoder import attends
from lorascope.adapters.ia3 import Ia3Config
from lorascope.adapters.kinds import kind_of
from lorascope.adapters.layers import every_part, model_parts
from lorascope.adapters.targets import ends_mlp, select
from lorascope.bases.empty_model import EmptyModel, hidden_of, language_part, layers_of
from lorascope.bases.transformers_config import in_short
from lorascope.config import AdapterConfig
from lorascope.counting.architectures import PeftRules
from lorascope.errors import ConfigError
from lorascope.records import LinearShape, ModelParts

NO_VALUES = "meta tensor"
"""In torch's errors: a value was asked for, and tensors on the meta device have none."""
Targets = tuple[tuple[str, ...], tuple[str, ...]]


def peft_rules(empty: EmptyModel, model: Any, shapes: Sequence[LinearShape]) -> PeftRules:
    """The rules for a model with linear layers of these `shapes`.

    Args:
        model: what `empty` builds; frozen and adapted afterwards.
    """
    fits = _fits(empty, model)
    prompt = _token_parameters(empty, model, peft.PromptTuningConfig, fits)
    prefix = _token_parameters(empty, model, peft.PrefixTuningConfig, fits)
    everything = peft.LoraConfig(r=1, target_modules="all-linear", task_type=empty.task)
    adapted = _adapted(model, everything)
    # PEFT's layers for bare parameters do not run on the meta device at all.
    has_experts = any(isinstance(module, ParamWrapper) for module in model.modules())
    ia3 = _ia3_targets(empty.config.model_type)
    return PeftRules(
        prompt_parameters=prompt,
        prefix_parameters=prefix if attends(model) else None,
        all_linear_parameters=(
            _trained(language_part(model)) if has_experts or fits(adapted) else None
        ),
        all_linear_has_experts=has_experts,
        ia3_targets=ia3 or _our_ia3_targets(shapes),
        ia3_is_ours=ia3 is None,
    )


def refusal(empty: EmptyModel, adapter: AdapterConfig) -> str | None:
    """PEFT's reason for not putting this adapter on the model; None where it does."""
    model = empty.build()
    chosen = select(model_parts(model), adapter)
    config = kind_of(adapter).peft(adapter, every_part(model), chosen)
    config.task_type = empty.task
    if hasattr(config, "init_lora_weights"):
        # What it begins with is taken from weights, of which there are none.
        config.init_lora_weights = True
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft.get_peft_model(model, config)
    except Exception as error:
        return in_short(error)
    return None


def _adapted(model: Any, config: peft.PeftConfig) -> Any:
    """The model with PEFT's adapter; None where PEFT cannot put it there."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            # PEFT warns of patterns that it made itself.
            warnings.simplefilter("ignore")
            return peft.get_peft_model(model, config)
    except Exception:
        # PEFT asks each configuration for names and sizes that not every one has.
        return None


def _trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _token_parameters(
    empty: EmptyModel,
    model: Any,
    method: Callable[..., peft.PeftConfig],
    fits: Callable[[Any], bool],
) -> int | None:
    """Parameters of one virtual token; None where it does not fit."""
    token = partial(method, num_virtual_tokens=1, task_type=empty.task)
    adapted = _adapted(model, token())
    if adapted is None:
        adapted = _adapted(model, token(**_sizes(empty, model)))
    return _trained(adapted) if fits(adapted) else None


def _sizes(empty: EmptyModel, model: Any) -> dict[str, int]:
    """What PEFT does not find in some configurations, and wants to be told."""
    heads = getattr(empty.text, "num_attention_heads", None)
    return {
        "num_layers": layers_of(empty.text),
        "token_dim": hidden_of(empty.text, model),
        # Without attention there are no heads, and PEFT asks for their number all the same.
        "num_attention_heads": heads if isinstance(heads, int) else 1,
    }


def _fits(empty: EmptyModel, model: Any) -> Callable[[Any], bool]:
    """Whether the model runs once it is adapted; where it does not run alone, nothing is known
    against an adapter."""
    model.set_attn_implementation("eager")
    if hasattr(model, "set_experts_implementation"):
        # The one in which no shape depends on values.
        model.set_experts_implementation("batched_mm")
    runs = partial(_runs, encodes_and_decodes=empty.config.is_encoder_decoder)
    alone = runs(model.eval())
    return lambda adapted: adapted is not None and (runs(adapted.eval()) or not alone)


def _runs(model: Any, encodes_and_decodes: bool) -> bool:
    """Whether all shapes of a forward pass fit together, as far as it comes without values."""
    tokens = torch.ones((1, 2), dtype=torch.long, device="meta")
    more = {"decoder_input_ids": tokens} if encodes_and_decodes else {}
    try:
        with warnings.catch_warnings(), torch.device("meta"), torch.no_grad():
            warnings.simplefilter("ignore")
            model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **more)
    except Exception as error:
        # Models fail in many ways on what does not fit.
        return NO_VALUES in str(error)
    return True


def _ia3_targets(model_type: str) -> Targets | None:
    """PEFT's, those scaled at their outputs and those at their inputs; None where it has none."""
    names = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(model_type)
    if names is None:
        return None
    inner = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING[model_type]
    return tuple(name for name in names if name not in inner), tuple(inner)


def _our_ia3_targets(shapes: Sequence[LinearShape]) -> Targets:
    try:
        chosen = select(ModelParts(list(shapes), []), Ia3Config())
    except ConfigError:
        return (), ()
    outputs = tuple(shape.name for shape in chosen if not ends_mlp(shape))
    return outputs, tuple(shape.name for shape in chosen if ends_mlp(shape))
