"""Which of a model's matrices get an adapter. No torch here: reports choose the same way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lorascope.config import AdapterConfig, Targets
from lorascope.errors import ConfigError, first_names
from lorascope.records import (
    DecoderShape,
    LinearShape,
    ModelParts,
    OwnerShape,
    UnadaptedWeights,
    VectorShape,
)

Part = LinearShape | VectorShape | OwnerShape

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
QUERY_OR_VALUE = {"q_proj", "v_proj", "query", "value", "query_proj", "value_proj", "q", "v"}
KEY_OR_VALUE = {"k_proj", "v_proj", "key", "value", "key_proj", "value_proj", "k", "v"}
LAST_OF_MLP = {"down_proj", "fc2", "w2", "fc_out", "wo", "dense_4h_to_h", "c_proj"}
"""What brings an MLP's inner features back, in the spellings of causal models."""
LAST_OF_ATTENTION = {"o_proj", "out_proj", "dense", "c_proj", "wo", "o"}
"""What mixes the heads of an attention."""
FUSED = {"query_key_value", "qkv_proj", "c_attn", "Wqkv"}
IN_ATTENTION = {
    Targets.q_v: QUERY_OR_VALUE,
    Targets.k_v_mlp: KEY_OR_VALUE | FUSED,
    Targets.sublayer_ends: LAST_OF_ATTENTION,
}
"""The layers of attention that a preset takes; a matrix that gives keys, values and queries is
adapted whole, as PEFT's own choice for IA3 has it."""
VECTORS = (Targets.norms, Targets.biases)
"""Presets that take no linear layers."""


def select(parts: ModelParts, config: AdapterConfig) -> list[Any]:
    """The layers that a method trains something of, or beside: shapes of linear layers, for norms
    and biases shapes of vectors, for prompts the decoder's. ConfigError lists what there is where
    nothing matches."""
    if config.targets in VECTORS:
        return _vectors(parts, config)
    if config.targets is Targets.sequence:
        return [_decoder(parts, config)]
    if config.targets is Targets.all:
        if parts.owners is None:
            raise _unrecorded(config, "all parameters")
        return parts.owners
    return [*_linear(parts, config), *_ends(parts, config)]


def _linear(parts: ModelParts, config: AdapterConfig) -> list[LinearShape]:
    shapes = parts.linear
    kinds = sorted({shape.kind for shape in shapes})
    if config.targets is Targets.modules:
        unknown = sorted(set(config.modules) - set(kinds))
        if unknown:
            raise ConfigError(
                f"{config.kind}.modules",
                unknown,
                "no layer that an adapter can train has such a name",
                f"This model has: {', '.join(kinds)}.{_flags(parts, unknown)}",
            )
        return [shape for shape in shapes if shape.kind in config.modules]
    chosen = [shape for shape in shapes if _in_preset(shape, config.targets)]
    if not chosen:
        fused = sorted(FUSED & set(kinds))
        hint = f" Query, key and value are one matrix here: {fused}." if fused else ""
        raise ConfigError(
            f"{config.kind}.targets",
            config.targets.value,
            "matches no layer of this model",
            f"This model has: {', '.join(kinds)}.{hint} "
            f"Use {config.kind}=modules {config.kind}.modules=[...].",
        )
    return chosen


def _ends(parts: ModelParts, config: AdapterConfig) -> list[LinearShape]:
    """Embeddings and head, as far as they are asked for."""
    asked = config.trained_ends()
    if asked and parts.ends is None:
        raise ConfigError(
            f"{config.kind}.{asked[0]}", True,
            "head and embeddings of this model are no layers that PEFT knows, or the base was "
            "prepared by an older version, whose record does not say them",
            "Delete models/<model>/base and run `lorascope prepare-base` again: its content stays. "
            f"If this comes again, leave {config.kind}.{asked[0]} out.",
        )  # fmt: skip
    return [getattr(parts.ends, name) for name in asked]


def _flags(parts: ModelParts, unknown: Sequence[str]) -> str:
    """How to say what somebody named who knows PEFT's target_modules."""
    if parts.ends is None:
        return ""
    both = {"embeddings": parts.ends.embeddings.kind, "head": parts.ends.head.kind}
    return "".join(
        f" LoRA is trained beside {kind} with lora.{flag}=true, whatever its targets."
        for flag, kind in both.items()
        if kind in unknown
    )


def _vectors(parts: ModelParts, config: AdapterConfig) -> list[VectorShape]:
    norms = config.targets is Targets.norms
    if parts.vectors is None:
        raise _unrecorded(config, "norms and biases")
    chosen = [vector for vector in parts.vectors if (vector.weight if norms else vector.bias)]
    if not chosen:
        raise ConfigError(
            f"{config.kind}.targets", config.targets.value, "this model has none",
            "Choose another method, such as adapter=lora.",
        )  # fmt: skip
    return chosen


def _decoder(parts: ModelParts, config: AdapterConfig) -> DecoderShape:
    if parts.decoder is None:
        raise ConfigError(
            f"{config.kind}.targets", config.targets.value,
            "nothing can be put in front of this model's tokens, or the base was prepared by an "
            "older version, whose record does not say it",
            "Delete models/<model>/base and run `lorascope prepare-base` again: its content stays. "
            "If this comes again, choose another method, such as adapter=lora.",
        )  # fmt: skip
    return parts.decoder


def _unrecorded(config: AdapterConfig, what: str) -> ConfigError:
    return ConfigError(
        f"{config.kind}.targets", config.targets.value,
        f"the base was prepared by an older version, whose record does not say {what}",
        "Delete models/<model>/base and run `lorascope prepare-base` again: its content stays.",
    )  # fmt: skip


def _in_preset(shape: LinearShape, targets: Targets) -> bool:
    if targets is Targets.all_linear:
        return True
    if targets in (Targets.k_v_mlp, Targets.sublayer_ends) and ends_mlp(shape):
        return True
    return _in_attention(shape) and shape.kind in IN_ATTENTION.get(targets, {shape.kind})


def ends_mlp(shape: LinearShape) -> bool:
    """Whether it is the last matrix of an MLP."""
    return shape.kind in LAST_OF_MLP and not _in_attention(shape)


def _in_attention(shape: LinearShape) -> bool:
    return any(ATTENTION.search(part) for part in shape.name.split("."))


def peft_targets(shapes: Sequence[Part], chosen: Sequence[Part]) -> list[str]:
    """`target_modules` for PEFT: kinds where they say it exactly, full names where not.

    Args:
        shapes: every such layer of the model, those that get no adapter among them.
    """
    kinds = sorted({shape.kind for shape in chosen})
    by_kind = {shape.name for shape in shapes if shape.kind in kinds}
    if by_kind == {shape.name for shape in chosen}:
        return kinds
    return [shape.name for shape in chosen]


def unadapted_sentences(
    shapes: list[LinearShape], unadapted: list[UnadaptedWeights]
) -> Iterator[str]:
    """What share of a model's matrices no adapter can reach, a sentence a reason."""
    linear = sum(shape.in_features * shape.out_features for shape in shapes)
    total = linear + sum(part.parameters for part in unadapted)
    for part in unadapted:
        yield (
            f"Adapters do not reach {100 * part.parameters / total:.2g} % of the weights in this "
            f"model's matrices: {part.what} ({first_names(part.names, 'kinds more')})."
        )
