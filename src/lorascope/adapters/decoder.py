"""The decoder of a model: its name, its layers, and what can stand in front of its tokens."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import peft
from peft.utils.other import _prepare_prompt_learning_config
from torch import nn

from lorascope.errors import ModelError
from lorascope.records import DecoderShape

BOTTOM = re.compile(r"embed(?!_out|ding_norm)|\b(wte|wpe|project_in)\b|prompt|prefix_layer")
"""In names outside the layers: what stands before the first one, such as embeddings, their norms
and virtual tokens. GPT-NeoX's head was embed_out; LFM2's final norm is embedding_norm."""
READ = {"input_ids", "inputs_embeds", "attention_mask", "past_key_values"}
"""Parameters of a forward pass that one can put something in front of."""


def language_model(model: Any) -> str:
    """The name of the language model inside a model that also sees or hears; else ''."""
    config = getattr(model, "config", None)
    if config is None or config.get_text_config() is config:
        return ""
    decoder = model.get_decoder()
    return next((name for name, module in model.named_modules() if module is decoder), "")


def decoder_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """Name and layers of the list that the language model runs through.

    Raises:
        ModelError: no list of modules is as long as config.json says.
    """
    text, inside = model.config.get_text_config(), language_model(model)
    for name, module in model.named_modules():
        is_list = isinstance(module, nn.ModuleList) and name.startswith(inside)
        if is_list and len(module) == text.num_hidden_layers:
            return name, module
    raise ModelError(
        f"{text.model_type}: has no list of {text.num_hidden_layers} layers, as its config.json "
        "says (num_hidden_layers), so that no layer of it can be told from another."
    )


def layers_below_top(model: Any) -> Callable[[str], int]:
    """A function from the name of a module or parameter to the number of layers that lie above it.

    The last layer has none above it, and neither have the final norm and the head. Embeddings, and
    what else stands before the first layer, have all layers above them.
    """
    name, layers = decoder_layers(model)
    number = re.compile(rf"{re.escape(name)}\.(\d+)\b")

    def below_top(own: str) -> int:
        found = number.match(own)
        if found:
            return len(layers) - 1 - int(found[1])
        return len(layers) if BOTTOM.search(own) else 0

    return below_top


def decoder_name(model: Any) -> str:
    """The name of all layers together, without the head; '' where a model has none of its own."""
    decoder = model.get_decoder()
    return next((name for name, module in model.named_modules() if module is decoder), "")


def decoder_shape(model: Any) -> DecoderShape | None:
    """The widths of what can stand in front of the tokens, as PEFT finds them; None where nothing
    can. Works on the meta device."""
    if type(model).__name__.endswith("ForSequenceClassification"):
        return None
    name = decoder_name(model)
    if not name or not set(inspect.signature(model.get_submodule(name).forward).parameters) >= READ:
        return None
    try:
        prompt, prefix = (
            _prepare_prompt_learning_config(method(num_virtual_tokens=1), model.config)
            for method in (peft.PromptTuningConfig, peft.PrefixTuningConfig)
        )
    except (AttributeError, ValueError):
        # PEFT asks each configuration for names and sizes that not every one has.
        return None
    embedded = int(model.get_input_embeddings().weight.shape[1])
    return DecoderShape(
        name=name,
        layers=int(prefix.num_layers),
        features=embedded if embedded == prompt.token_dim else 0,
        key_features=int(prefix.token_dim) if attends(model) else 0,
    )


def attends(model: Any) -> bool:
    """Whether all layers have keys and values: some models with a state instead pass over a prefix
    without a word."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None)
    if kinds:
        return all(kind.endswith("attention") and "linear" not in kind for kind in kinds)
    return not getattr(model, "_is_stateful", False)
