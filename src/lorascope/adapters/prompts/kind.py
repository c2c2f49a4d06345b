"""Prompt tuning, P-tuning, prefix tuning and PrefixLayer: what is asked for, counted and named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.rate import PLAIN, Rate
from lorascope.config import AdapterConfig, Targets
from lorascope.config.bounds import ABOVE_ZERO, ONE_OR_MORE, ZERO_OR_MORE, bounded, one_of
from lorascope.errors import ConfigError
from lorascope.records import DecoderShape, Dial, Method, ModelParts

if TYPE_CHECKING:
    from torch import nn

TOKENS = Dial("tokens", "tokens", letter="t", is_axis=True, counts=True)
UNDECAYED = Rate(decay_times=0.0)
CAUSAL = {"task_type": "CAUSAL_LM"}


@dataclass
class SequenceConfig(AdapterConfig):
    """What all of them ask for: positions in front of every sequence."""

    presets: ClassVar[tuple[Targets, ...]] = (Targets.sequence,)
    targets: Targets = Targets.sequence
    learning_rate_factor: float = bounded(10.0, ABOVE_ZERO, "10 is usual.")
    tokens: int = bounded(16, ONE_OR_MORE, "16 is usual.")
    """Trained positions. They take memory and time as tokens do."""

    def require_layers(self, shapes: Sequence[DecoderShape]) -> None:
        """Trained embeddings stand among the base's own."""
        if not shapes[0].features:
            raise ConfigError(
                f"{self.kind}.targets", self.targets.value,
                "the embeddings of this model are not as wide as its layers",
                "Choose another method, such as adapter=lora.",
            )  # fmt: skip


@dataclass
class PromptConfig(SequenceConfig):
    """Trained embeddings in front of the prompt (Lester et al. 2021, arXiv 2104.08691): PrefixEmbed
    of the LoRA paper, all of whose tokens stand in front here."""

    kind: ClassVar[str] = "prompt"
    init: str = bounded("vocabulary", one_of("init", ("vocabulary", "random")))
    """What they begin as: embeddings of tokens drawn from the vocabulary, or normal numbers."""


@dataclass
class PtuningConfig(SequenceConfig):
    """The same embeddings as a network of three layers makes them, which is trained too and dropped
    afterwards (Liu et al. 2021, arXiv 2103.10385)."""

    kind: ClassVar[str] = "ptuning"
    learning_rate_factor: float = bounded(1.0, ABOVE_ZERO, "1 is usual.")
    hidden: int = bounded(0, ZERO_OR_MORE, "0 is as wide as the embeddings.")
    """Features of the network between its layers; 0 is as many as an embedding has."""


@dataclass
class PrefixConfig(SequenceConfig):
    """Trained keys and values in front of those of every layer (Li and Liang 2021, arXiv
    2101.00190)."""

    kind: ClassVar[str] = "prefix"
    recomputes: ClassVar[bool] = False
    projection: bool = False
    """Let a network make them, which is trained too and dropped afterwards."""
    hidden: int = bounded(0, ZERO_OR_MORE, "0 is as wide as a layer's keys.")
    """Features of that network; 0 is as many as a layer's keys have."""

    def require_layers(self, shapes: Sequence[DecoderShape]) -> None:
        """A prefix stands among a layer's keys."""
        if not shapes[0].key_features:
            raise ConfigError(
                f"{self.kind}.targets", self.targets.value,
                "not every layer of this model has keys and values",
                "Choose another method, such as adapter=prompt.",
            )  # fmt: skip


@dataclass
class PrefixLayerConfig(SequenceConfig):
    """Trained states in front of the prompt, at the input of every layer, in place of what lower
    layers make of them (Hu et al. 2021, arXiv 2106.09685, section 5.1)."""

    kind: ClassVar[str] = "prefix_layer"


class InFront(Lone):
    """What all of them say of themselves alike."""

    unmergeable: str | None = "what stands in front of a sequence is no weight of the base"

    def rate(self, config: Any, name: str, parameter: nn.Parameter) -> Rate:
        """As in transformers' Trainer, biases of a network do not decay."""
        return UNDECAYED if name.endswith("bias") else PLAIN


class Prompt(InFront):
    """The kind `prompt`."""

    config = PromptConfig
    method = Method(PromptConfig.kind, "prompt tuning", (TOKENS, Dial("init", "init")))

    def peft(self, config: PromptConfig, every: ModelParts, chosen: list[DecoderShape]) -> Any:
        """PEFT draws from the vocabulary, or normal numbers."""
        from peft import PromptTuningConfig

        init = "SAMPLE_VOCAB" if config.init == "vocabulary" else "RANDOM"
        return PromptTuningConfig(
            num_virtual_tokens=config.tokens, prompt_tuning_init=init, **CAUSAL
        )

    def parameters(self, config: PromptConfig, shapes: Sequence[DecoderShape]) -> int:
        """An embedding a token."""
        return config.tokens * shapes[0].features


class Ptuning(InFront):
    """The kind `ptuning`."""

    config = PtuningConfig
    method = Method(PtuningConfig.kind, "P-tuning", (TOKENS, Dial("hidden", "hidden", counts=True)))

    def peft(self, config: PtuningConfig, every: ModelParts, chosen: list[DecoderShape]) -> Any:
        """With PEFT's MLP."""
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            num_virtual_tokens=config.tokens,
            encoder_reparameterization_type="MLP",
            encoder_hidden_size=config.hidden or None,
            **CAUSAL,
        )

    def parameters(self, config: PtuningConfig, shapes: Sequence[DecoderShape]) -> int:
        """An embedding a token, and three layers with biases."""
        width = shapes[0].features
        hidden = config.hidden or width
        network = 2 * width * hidden + hidden * hidden + 2 * hidden + width
        return config.tokens * width + network


class Prefix(InFront):
    """The kind `prefix`."""

    config = PrefixConfig
    method = Method(
        PrefixConfig.kind,
        "prefix tuning",
        (
            TOKENS,
            Dial("projection", "projection", counts=True),
            Dial("hidden", "hidden", counts=True),
        ),
    )

    def peft(self, config: PrefixConfig, every: ModelParts, chosen: list[DecoderShape]) -> Any:
        """Where heads share keys, as many as there are keys."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(
            num_virtual_tokens=config.tokens,
            prefix_projection=config.projection,
            encoder_hidden_size=config.hidden or None,
            **CAUSAL,
        )

    def parameters(self, config: PrefixConfig, shapes: Sequence[DecoderShape]) -> int:
        """A key and a value a layer and token; or what makes them."""
        width = shapes[0].key_features
        made = 2 * shapes[0].layers * width
        if not config.projection:
            return config.tokens * made
        hidden = config.hidden or width
        return config.tokens * width + (width + 1) * hidden + (hidden + 1) * made


class PrefixLayer(InFront):
    """The kind `prefix_layer`."""

    config = PrefixLayerConfig
    method = Method(PrefixLayerConfig.kind, "PrefixLayer", (TOKENS,))

    def peft(self, config: PrefixLayerConfig, every: ModelParts, chosen: list[DecoderShape]) -> Any:
        """A method that PEFT lacks: ours stands among its own."""
        from lorascope.adapters.prompts.prefix_layer import PeftPrefixLayerConfig

        return PeftPrefixLayerConfig(
            tokens=config.tokens,
            # As a pattern, which is matched whole.
            target_modules=re.escape(chosen[0].name),
            **CAUSAL,
        )

    def parameters(self, config: PrefixLayerConfig, shapes: Sequence[DecoderShape]) -> int:
        """A state a layer and token: the LoRA paper's L d (l_p + l_i)."""
        return config.tokens * shapes[0].layers * shapes[0].features


PROMPTS = (Prompt(), Ptuning(), Prefix(), PrefixLayer())
