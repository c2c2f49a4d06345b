"""The decoder with trained positions in front of every sequence, which whoever calls it need not
know of: what it gives has as many positions as the tokens that it got.

So the base itself answers as PEFT's model does, whether logits are read at some places only, or a
text is generated with a cache.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import Cache

from lorascope.adapters.decoder import decoder_name
from lorascope.errors import ModelError

WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""What configurations call the tokens that a layer with local attention sees."""


class FrontedDecoder(ABC):
    """A layer of PEFT's in the place of a decoder, with positions in front of what it reads."""

    keeps_types = True
    """What it gives has the types of the decoder itself."""

    if TYPE_CHECKING:
        # PEFT's class says nothing of its attributes' types.
        def __getattr__(self, name: str) -> Any: ...
    else:

        def __getattr__(self, name: str) -> Any:
            """Whatever else is asked of a decoder, such as its embeddings."""
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("base_layer"), name)

    def put_in_front(self, tokens: int) -> None:
        """Let so many positions stand in front."""
        self._tokens, self._enabled = tokens, True
        self._signature = inspect.signature(self.base_layer.forward)
        self._room = _learned_positions(self.base_layer)

    def enable_adapters(self, enabled: bool) -> None:
        """Read what is in front, or only what is given."""
        self._enabled = enabled

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the decoder gives for its tokens, behind what stands in front."""
        if not self._enabled:
            return self.base_layer(*args, **kwargs)
        given = self._signature.bind(*args, **kwargs)
        given.arguments |= given.arguments.pop("kwargs", {})
        inputs = dict(given.arguments)
        read = inputs.get("input_ids")
        read = inputs["inputs_embeds"] if read is None else read
        before = _cached(inputs.get("past_key_values"))
        if self._room and max(before, self._tokens) + read.shape[1] > self._room:
            raise ModelError(
                f"tokens={self._tokens}: with the {read.shape[1]} tokens of a sample they are more "
                f"than this model's {self._room} positions. Have fewer, or shorter samples."
            )
        mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
        if mask is not None:
            inputs["attention_mask"] = _wider(mask, self._tokens)
        if positions is not None:
            inputs["position_ids"] = positions + self._tokens
        if before:
            return self.base_layer(**inputs)
        return self.begin(inputs, read.shape[0])

    def padding_counts(self, longest_tokens: int) -> bool:
        """Whether padding between what is in front and a text changes the answer: some layers see
        a window alone, in which padding takes places.

        Args:
            longest_tokens: of a text with what is generated, and with its padding.
        """
        config = self.base_layer.config
        windows = [getattr(config, name, None) for name in WINDOWS]
        return any(own and self._tokens + longest_tokens > own for own in windows)

    @abstractmethod
    def begin(self, inputs: dict[str, Any], samples: int) -> Any:
        """The forward pass over the first tokens of a text.

        Args:
            inputs: by name; mask and positions are already those of tokens behind the front.
        """

    def embedded(self, inputs: dict[str, Any], front: Tensor) -> dict[str, Any]:
        """The inputs with embeddings in front: [samples, tokens, features]."""
        embeddings = inputs.pop("inputs_embeds", None)
        ids = inputs.pop("input_ids", None)
        if embeddings is None:
            embeddings = self.base_layer.get_input_embeddings()(ids)
        positions = inputs.get("position_ids")
        if positions is not None:
            first = torch.arange(self._tokens, device=positions.device)
            inputs["position_ids"] = torch.cat([first.expand(len(positions), -1), positions], 1)
        front = front.to(embeddings.dtype)
        return {**inputs, "inputs_embeds": torch.cat([front, embeddings], 1)}

    def without_front(self, output: Any) -> Any:
        """The output at the tokens alone."""
        states = output.last_hidden_state[:, self._tokens :]
        return type(output)(**{**output, "last_hidden_state": states})


class PromptedDecoder(FrontedDecoder, nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A decoder with what PEFT's model puts in front: embeddings, or keys and values."""

    def __init__(self, base_layer: nn.Module, model: PeftModel) -> None:
        super().__init__()
        config, self.base_layer = model.active_peft_config, base_layer
        self.put_in_front(int(config.num_virtual_tokens))
        self.prompt_encoder = model.prompt_encoder[model.active_adapter]
        # PEFT's model keeps them in a dict of its own, where no `to` finds them.
        self.register_buffer("front_ids", model.prompt_tokens[model.active_adapter], False)
        self._is_prefix = config.peft_type == "PREFIX_TUNING"
        self._of_peft: Callable[[], PeftModel] = lambda: model

    def begin(self, inputs: dict[str, Any], samples: int) -> Any:
        """With embeddings in front of the tokens', or a cache that holds keys and values."""
        model = self._of_peft()
        model.prompt_tokens[model.active_adapter] = self.front_ids
        front = model.get_prompt(batch_size=samples)
        if not self._is_prefix:
            return self.without_front(self.base_layer(**self.embedded(inputs, front)))
        cache = inputs.get("past_key_values")
        if cache is not None:
            # A generation goes on with its own cache.
            for number, layer in enumerate(front.layers):
                cache.update(layer.keys, layer.values, number)
            front = cache
        try:
            return self.base_layer(**{**inputs, "past_key_values": front})
        except RuntimeError as error:
            if "Sizes of tensors must match" not in str(error):
                raise
            raise ModelError(
                "adapter=prefix: the keys that PEFT makes do not fit this model's layers, whose "
                "heads share keys in a way of their own. Choose another method, such as "
                "adapter=prompt."
            ) from error


def stand_in_front(model: PeftModel) -> PeftModel:
    """Let the base of PEFT's prompted model answer as that model does, and the model ask it."""
    base = model.get_base_model()
    name = decoder_name(base)
    prompted = PromptedDecoder(base.get_submodule(name), model)
    base.set_submodule(name, prompted)
    # As PEFT itself does where it turns a prompt off.
    model.forward, model.generate = base.forward, base.generate
    return model


def _cached(cache: Any) -> int:
    """Positions that a cache holds."""
    return int(cache.get_seq_length()) if isinstance(cache, Cache) else 0


def _wider(mask: Any, tokens: int) -> Tensor:
    """The mask [samples, positions] with ones in front."""
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        raise ModelError(
            "an attention mask other than [samples, positions] leaves prompts no place"
        )
    return torch.cat([mask.new_ones(len(mask), tokens), mask], 1)


def _learned_positions(decoder: Any) -> int:
    """Positions that there are embeddings for; 0 where positions are reckoned, without an end."""
    words = decoder.get_input_embeddings()
    most = getattr(decoder.config, "max_position_embeddings", 0) or 0
    tables = [
        own for own in decoder.modules() if isinstance(own, nn.Embedding) and own is not words
    ]
    return int(most) if any(own.num_embeddings >= most for own in tables) else 0
