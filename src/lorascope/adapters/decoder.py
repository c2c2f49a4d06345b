"""The decoder's layers: which modules they are, and how far below the top a name stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from lorascope.adapters.layers import language_model
from lorascope.errors import ModelError

BOTTOM = re.compile(r"embed(?!_out|ding_norm)|\b(wte|wpe|project_in)\b|prompt")
"""In names outside the layers: what stands before the first one, such as embeddings, their norms
and virtual tokens. GPT-NeoX's head was embed_out; LFM2's final norm is embedding_norm."""


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
