"""The inputs of trials: the prepared dataset, and the base with what it weighs in each mode."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from lorascope.records.trial import RECORD_FORMAT, Provenance


class Matrix(Protocol):
    """A linear map with weight [out_features, in_features]."""

    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...


@dataclass(frozen=True)
class LinearShape:
    """One matrix that can get an adapter."""

    name: str
    """Full dotted name in the model."""
    kind: str
    """Last part of the name, e.g. q_proj."""
    in_features: int
    out_features: int


@dataclass(frozen=True)
class VectorShape:
    """A norm, or another layer that has a bias."""

    name: str
    """Full dotted name in the model."""
    weight: int
    """Size of a norm's weight; 0 where the layer is none."""
    bias: int
    """Size of the bias; 0 without one."""

    @property
    def kind(self) -> str:
        """Last part of the name, e.g. input_layernorm."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class DecoderShape:
    """All layers of a language model together, in front of whose tokens others can be put."""

    name: str
    """Full dotted name in the model; '' where only its config.json is known."""
    layers: int
    features: int
    """Width of a token's embedding; 0 where it is not the width of the layers."""
    key_features: int
    """Width of a token's keys in a layer, and of its values; 0 where not all layers have them."""


@dataclass(frozen=True)
class OwnerShape:
    """A module of the language model that has parameters of its own, with all that is in it."""

    name: str
    """Full dotted name in the model."""
    parameters: int
    """Number of values in it; tied ones count in the first module that has them."""

    @property
    def kind(self) -> str:
        """Last part of the name, e.g. embed_tokens."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class ModelEnds:
    """What stands before and behind a language model's layers; tied ones share their weight."""

    embeddings: LinearShape
    """From a row of the vocabulary to features."""
    head: LinearShape
    """From features to the vocabulary."""


@dataclass(frozen=True)
class ModelParts:
    """The layers of a model that a method can train something of, or beside."""

    linear: list[LinearShape]
    vectors: list[VectorShape] | None
    """None where an older record does not say them."""
    decoder: DecoderShape | None = None
    """None where nothing can be put in front of its tokens, or an older record does not say it."""
    owners: list[OwnerShape] | None = None
    """All parameters of the language model; None where an older record does not say them."""
    ends: ModelEnds | None = None
    """None where they are no layers of torch's, or an older record does not say them."""
    class_head: int = 0
    """Number of values in a head for classes, which every trial trains in full; 0 without one."""


@dataclass(frozen=True)
class UnadaptedWeights:
    """Matrices of a model that no adapter reaches."""

    what: str
    """Description in words, with the reason."""
    names: list[str]
    """One name a kind, with * for the layer's number, e.g. model.layers.*.mlp.experts.down_proj."""
    parameters: int


@dataclass(frozen=True)
class BaseRecord:
    """A prepared base."""

    model: str
    source: str
    architecture: str
    parameters: int
    vocabulary: int
    context_tokens: int
    tied_head: bool
    linear_shapes: list[LinearShape]
    content_sha256: str
    """Digest of config, weights and tokenizer files: the base's identity."""
    seconds: float
    pretraining: dict[str, float] | None
    """Steps, loss_nats and recall of a base that was pre-trained here."""
    provenance: Provenance
    format: int = RECORD_FORMAT
    settings: dict[str, object] | None = None
    """Settings of conf/model that it was made with (`files.made_with`); None in older records."""
    unadapted: list[UnadaptedWeights] = field(default_factory=list)
    """Matrices that no adapter reaches, embeddings and head not among them."""
    vectors: list[VectorShape] | None = None
    """Norms and other layers with biases; None in older records."""
    decoder: DecoderShape | None = None
    """None where nothing can be put in front of its tokens, and in older records."""
    owners: list[OwnerShape] | None = None
    """All parameters of the language model; None in older records."""
    ends: ModelEnds | None = None
    """Embeddings and head; None where they are no layers of torch's, and in older records."""
    class_head: int = 0
    """Number of values in a head for classes, which every trial trains in full; 0 without one."""

    @property
    def parts(self) -> ModelParts:
        """The layers that a method can choose among."""
        beside = self.decoder, self.owners, self.ends, self.class_head
        return ModelParts(self.linear_shapes, self.vectors, *beside)

    @property
    def matrix_parameters(self) -> int:
        """Number of weights in linear layers and in matrices that no adapter reaches."""
        linear = sum(shape.in_features * shape.out_features for shape in self.linear_shapes)
        return linear + sum(weights.parameters for weights in self.unadapted)


@dataclass(frozen=True)
class LayerError:
    """The distance of one quantized layer from full precision."""

    name: str
    relative_rmse: float
    """sqrt(mean((w - q)^2) / mean(w^2))"""
    bits_per_parameter: float


@dataclass(frozen=True)
class FootprintRecord:
    """A base as stored in one mode."""

    model: str
    quant: str
    storage: str
    base_sha256: str
    content_sha256: str
    quantized_parameters: int
    quantized_weight_bytes: int
    quantization_constant_bytes: int
    unquantized_bytes: int
    total_bytes: int
    bits_per_quantized_parameter: float | None
    """(weights + constants) x 8 / parameters of the linear layers in this mode's storage."""
    layers: list[LayerError]
    seconds: float
    provenance: Provenance
    format: int = RECORD_FORMAT
    settings: dict[str, object] | None = None
    """Settings of conf/quant that it was made with (`files.made_with`); None in older records."""
    double_quantization: bool | None = None
    """Whether the constants are quantized too: with `storage` it decides the expected bits."""
    matrix_parameters: int | None = None
    """Number of weights in the base's matrices, quantized or not; embeddings and head excluded."""

    @property
    def quantized_share(self) -> float | None:
        """Quantized share of the weights in matrices; None for a mode that quantizes nothing, or
        where unknown."""
        if not self.quantized_parameters or not self.matrix_parameters:
            return None
        return self.quantized_parameters / self.matrix_parameters


@dataclass(frozen=True)
class SplitCard:
    """One split of a prepared dataset."""

    rows: int
    sha256: str
    tokens: int
    trained_tokens: int
    length_percentiles_tokens: dict[str, int]
    """Keys p0, p50, p90, p99, p100."""
    eos_trained_share: float
    unknown_token_share: float
    chance_accuracy: float | None = None
    """Share of rows that a guess among each row's choices gets right; None without choices."""
    most_trained_tokens: int | None = None
    """Trained tokens of the sample with the most; None in older records."""
    chosen_longer_share: float | None = None
    """Share of pairs whose chosen reply has more tokens than the rejected one: length bias. None
    without pairs; with them the split's tokens are those of both replies."""
    rejected_longer_share: float | None = None
    """The same of the rejected reply; pairs of equal length are in neither."""
    chosen_more_tokens: float | None = None
    """Mean of tokens of the chosen reply less those of the rejected one."""
    prompts: int | None = None
    """Number of different prompts of pairs: those of one prompt count as one draw. None of other
    rows."""
    class_rows: dict[str, int] | None = None
    """Class -> rows, of rows with classes; None of others."""


@dataclass(frozen=True)
class DataCard:
    """A prepared dataset."""

    name: str
    model: str
    source: str
    template: str
    template_sha256: str
    tokenizer_sha256: str
    splits: dict[str, SplitCard]
    """Keys train, validation, test."""
    rows_read: int
    dropped_rows: dict[str, int]
    """Reason -> rows, e.g. 'longer than 512 tokens', 'duplicate'."""
    scoring: str
    answer_pattern: str | None
    max_tokens: int
    content_sha256: str
    """Digest over the three split files and what scoring needs: the dataset's identity."""
    warnings: list[str]
    provenance: Provenance
    max_dropped_fraction: float | None = None
    """The largest share of unfit rows that was allowed; None in older records."""
    unfit_rows: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> places of the first hundred rows that could not be trained on; `dropped_rows`
    counts them all."""
    special_tokens_in_text: dict[str, int] = field(default_factory=dict)
    """Special token -> rows whose own text holds it, where the model reads it as control."""
    settings: dict[str, object] | None = None
    """Settings of conf/data that it was made with (`files.made_with`); None in older records."""
    template_date: str | None = None
    """Date (YYYY-MM-DD) given to a chat template that asks for today's; None where it asks for
    none."""
    format: int = RECORD_FORMAT
