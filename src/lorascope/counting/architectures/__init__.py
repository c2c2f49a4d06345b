"""The shapes of a model from its config.json alone, for every architecture that has a table here.

Tests hold each against the model that transformers builds on the meta device.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lorascope.counting.architectures.biased import BIASED_DECODERS, ENCODERS
from lorascope.counting.architectures.decoders import DECODERS
from lorascope.counting.architectures.rows import Architecture, Row, Settings, Size, Sizes
from lorascope.errors import ConfigError
from lorascope.records import (
    DecoderShape,
    LinearShape,
    ModelParts,
    OwnerShape,
    UnadaptedWeights,
    VectorShape,
)

ARCHITECTURES: Mapping[str, Architecture] = {**DECODERS, **BIASED_DECODERS, **ENCODERS}
"""model_type -> table of the architecture."""

TEXT_TYPES = {"gemma3": "gemma3_text"}
"""model_type of a nested `text_config` that does not say its own."""

NEEDED_WHERE_USED = {
    "intermediate": "intermediate_size",
    "twice_intermediate": "intermediate_size",
    "context": "max_position_embeddings",
}
"""Size -> the setting that it comes from."""


@dataclass(frozen=True)
class WeightMatrix:
    """A weight that can get an adapter."""

    name: str
    """Dotted name of the module in transformers; for experts and routers, of the parameter."""
    in_features: int
    out_features: int
    kind: Literal["linear", "conv1d", "experts", "router"] = "linear"
    """conv1d holds its weight as [in, out]; experts is a 3-D tensor [experts, out, in]."""
    experts: int = 1
    """Matrices in the tensor."""
    fused: int = 1
    """2 where gate and up lie side by side in it: PEFT's "all-linear" doubles the rank there."""

    @property
    def parameters(self) -> int:
        return self.experts * self.in_features * self.out_features


@dataclass(frozen=True)
class PeftRules:
    """What PEFT's methods make of a model by default. None where PEFT cannot run a method on it."""

    prompt_parameters: int | None
    """Parameters of one virtual token of prompt tuning."""
    prefix_parameters: int | None
    """Those of prefix tuning: a key and a value in each layer. Their heads are those of the keys
    where the config class names them, else as wide as the hidden size."""
    all_linear_parameters: int | None
    """Parameters of LoRA at rank 1 where PEFT is told "all-linear"."""
    all_linear_has_experts: bool
    """Whether these include experts and routers."""
    ia3_targets: tuple[tuple[str, ...], tuple[str, ...]]
    """Layers of IA3, see `Architecture.ia3`; both empty where nothing fits."""
    ia3_is_ours: bool = False
    """Whether PEFT names none for this architecture, and they are ours."""


@dataclass(frozen=True)
class ModelShape:
    """The shapes of a model, as counting needs them."""

    model_type: str
    layers: int
    hidden: int
    matrices: tuple[WeightMatrix, ...]
    """Linear layers without the output head, in module order, which `target_modules` can name."""
    expert_matrices: tuple[WeightMatrix, ...]
    """Experts and routers, which only PEFT's `target_parameters` can name."""
    total_parameters: int
    """Every parameter once: embeddings, head unless tied, matrices, norms, biases."""
    bias_parameters: int
    """Biases of linear layers, norms and head, which BitFit trains (Ben Zaken et al. 2021, arXiv
    2106.10199); 0 for models without biases, such as Llama."""
    peft: PeftRules
    unadapted: tuple[UnadaptedWeights, ...] = ()
    """Matrices that no adapter reaches, by reason."""
    frozen_parameters: int = 0
    """Parameters that no gradient reaches in any method, such as a router's balancing bias."""
    has_two_blocks: bool = True
    """Whether each layer is attention or another mixer, and an MLP: where Adapter-H stands twice a
    layer."""
    vectors: tuple[VectorShape, ...] = ()
    """Norms and other layers with biases, as `adapters.layers.vector_shapes` finds them."""

    @property
    def parts(self) -> ModelParts:
        """What a method can choose among."""
        whole = OwnerShape(self.model_type, self.total_parameters)
        return ModelParts(self.linear_shapes, list(self.vectors), self.decoder, [whole])

    @property
    def decoder(self) -> DecoderShape:
        """What prompts are put in front of."""
        keys = (self.peft.prefix_parameters or 0) // (2 * self.layers)
        return DecoderShape("", self.layers, self.peft.prompt_parameters or 0, keys)

    @property
    def linear_shapes(self) -> list[LinearShape]:
        """The layers that can get an adapter, as `adapters.layers.linear_shapes` finds them."""
        return [
            LinearShape(m.name, m.name.rpartition(".")[2], m.in_features, m.out_features)
            for m in self.matrices
        ]


def language_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """The part of a config.json that describes the language model: `text_config` where it has one,
    as Gemma 3 from 4B on has beside its vision tower."""
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        return config
    kind = config.get("model_type")
    return {"model_type": TEXT_TYPES.get(str(kind), kind), **text}


def has_table(config: Mapping[str, object]) -> bool:
    """Whether the shapes of this model's language model stand in a table here."""
    config = language_config(config)
    architecture = ARCHITECTURES.get(str(config.get("model_type")))
    return architecture is not None and not any(config.get(key) for key in architecture.refuses)


def table_shape(config: Mapping[str, object]) -> ModelShape:
    """The shapes of the model, with its language-model head, that a config.json describes; for a
    model that sees and reads, of its language model only. ConfigError where its model_type has no
    table, or a setting that the table needs is missing."""
    config = language_config(config)
    model_type = str(config.get("model_type"))
    architecture = ARCHITECTURES.get(model_type)
    if architecture is None:
        raise ConfigError(
            "config.json: model_type",
            config.get("model_type"),
            "parameters of this architecture cannot be counted from its configuration",
            f"Known types are: {', '.join(sorted(ARCHITECTURES))}.",
        )
    settings = Settings(config, architecture.defaults, architecture.narrowing)
    for key in architecture.refuses:
        if settings.whole(key, 0):
            problem = "adds matrices that are not counted from a configuration"
            raise settings.error(key, True, problem, "Set it to false.")
    sizes, layers = _sizes(architecture, settings), settings.size("num_hidden_layers")
    rows = _named_rows(architecture, layers, sizes)
    biases = sum(_size(row.shape[-1], sizes) for row in rows if row.bias)
    weights = sum(math.prod(_size(size, sizes) for size in row.shape) for row in rows)
    matrices = [_matrix(row, sizes) for row in rows if row.kind != "plain"]
    key_features = sizes["key_value" if architecture.narrowing else "hidden"]
    return ModelShape(
        model_type=model_type,
        layers=layers,
        hidden=sizes["hidden"],
        matrices=tuple(m for m in matrices if m.kind in ("linear", "conv1d")),
        expert_matrices=tuple(m for m in matrices if m.kind in ("experts", "router")),
        total_parameters=weights + biases,
        bias_parameters=biases,
        peft=PeftRules(
            # PEFT's tokens are as wide as the layers; some embeddings are narrower.
            prompt_parameters=(
                sizes["hidden"] if sizes.get("embedded") in (None, sizes["hidden"]) else None
            ),
            prefix_parameters=(
                2 * layers * key_features if _size(architecture.takes_prefix, sizes) else None
            ),
            all_linear_parameters=sum(
                m.experts * m.fused * (m.in_features + m.out_features) for m in matrices
            ),
            all_linear_has_experts=any(m.kind in ("experts", "router") for m in matrices),
            ia3_targets=architecture.ia3,
            ia3_is_ours=architecture.ia3_is_ours,
        ),
        unadapted=tuple(_unadapted(matrices)),
        vectors=tuple(_vector(row, sizes) for row in rows if row.bias or len(row.shape) == 1),
    )


def _unadapted(matrices: Sequence[WeightMatrix]) -> Iterator[UnadaptedWeights]:
    bare = [matrix for matrix in matrices if matrix.kind in ("experts", "router")]
    names = dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", matrix.name) for matrix in bare)
    if bare:
        size = sum(matrix.parameters for matrix in bare)
        yield UnadaptedWeights("experts and routers, no linear layers", list(names), size)


def _sizes(architecture: Architecture, settings: Settings) -> Sizes:
    """Sizes by name: the usual ones, and those of the architecture."""
    hidden, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
    given = settings.find("head_dim") is not None
    if not given and hidden % heads:
        problem = f"hidden_size={hidden} is not a multiple of it"
        raise settings.error("num_attention_heads", heads, problem)
    head = settings.size("head_dim") if given else hidden // heads
    query, key_value = heads * head, settings.size("num_key_value_heads", heads) * head
    # 0 where it is absent: some architectures derive it, or do without.
    intermediate = settings.whole("intermediate_size", 0)
    usual = {
        "hidden": hidden,
        "head": head,
        "query": query,
        "key_value": key_value,
        "fused": query + 2 * key_value,
        "intermediate": intermediate,
        "twice_intermediate": 2 * intermediate,
        "vocabulary": settings.size("vocab_size"),
        "context": settings.whole("max_position_embeddings", 0),
        "token_types": settings.whole("type_vocab_size", 0),
        "experts": settings.whole("num_local_experts", 0),
        "attention_bias": settings.whole("attention_bias", 0),
        "mlp_bias": settings.whole("mlp_bias", 0),
        "untied": int(not settings.whole("tie_word_embeddings", 0)),
    }
    sizes = {**usual, **architecture.sizes(settings, usual)}
    rows = (*architecture.before, *architecture.each, *architecture.after)
    used = {size for row in rows for size in row.shape}
    for name, key in NEEDED_WHERE_USED.items():
        if name in used and not sizes[name]:
            settings.size(key)
    return sizes


def _named_rows(architecture: Architecture, layers: int, sizes: Sizes) -> list[Row]:
    """Every row that this model has, under its full name."""
    each = [
        replace(row, name=f"{architecture.layer.format(layer)}.{row.name}")
        for layer in range(layers)
        for row in architecture.each
    ]
    rows = [*architecture.before, *each, *architecture.after]
    return [replace(row, bias=_size(row.bias, sizes)) for row in rows if _size(row.when, sizes)]


def _size(size: Size, sizes: Sizes) -> int:
    return sizes[size] if isinstance(size, str) else size


def _vector(row: Row, sizes: Sizes) -> VectorShape:
    size = _size(row.shape[-1], sizes)
    name = row.name.removesuffix(".bias")
    return VectorShape(name, size if len(row.shape) == 1 else 0, size if row.bias else 0)


def _matrix(row: Row, sizes: Sizes) -> WeightMatrix:
    *experts, inputs, outputs = (_size(size, sizes) for size in row.shape)
    assert row.kind != "plain"
    count = experts[0] if experts else 1
    return WeightMatrix(row.name, inputs, outputs, row.kind, count, row.fused)
