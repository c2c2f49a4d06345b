"""The vocabulary in which architectures are written down: one row a tensor, sizes by name.

A row names a module as transformers does and gives its sizes as names ("hidden", "query") or plain
numbers; the sizes themselves come from a config.json. `when` and `bias` name a size too: 0 is no.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lorascope.errors import ConfigError

Size = str | int
Sizes = dict[str, int]
Kind = Literal["linear", "conv1d", "experts", "router", "plain"]
"""linear and conv1d can get an adapter as modules; experts, one matrix an expert in a 3-D tensor,
and a router's weight only as bare parameters; plain tensors (embeddings, norms, heads) get none."""


@dataclass(frozen=True)
class Row:
    """One tensor of a model, with its bias."""

    name: str
    kind: Kind
    shape: tuple[Size, ...]
    """linear, conv1d, router: (in, out); experts: (experts, in, out); plain: any."""
    bias: Size = 0
    """Whether the tensor has a bias, of the last size in `shape`."""
    when: Size = 1
    """Whether the model has this tensor."""
    fused: int = 1
    """Number of the paper's matrices that lie side by side in it, where PEFT asks."""


def linear(name: str, inputs: Size, outputs: Size, bias: Size = 0, when: Size = 1) -> Row:
    """A torch Linear."""
    return Row(name, "linear", (inputs, outputs), bias, when)


def conv1d(name: str, inputs: Size, outputs: Size) -> Row:
    """GPT-2's Conv1D: a linear map with bias whose weight lies transposed."""
    return Row(name, "conv1d", (inputs, outputs), 1)


def embedding(name: str, rows: Size, columns: Size, when: Size = 1) -> Row:
    """A table of vectors."""
    return Row(name, "plain", (rows, columns), 0, when)


def head(name: str, inputs: Size = "hidden", bias: Size = 0, when: Size = "untied") -> Row:
    """The output head; it counts only where it is not the embedding and, if any, `vector`."""
    return Row(name, "plain", (inputs, "vocabulary"), bias, when)


def norm(name: str, size: Size = "hidden", bias: Size = 0, when: Size = 1) -> Row:
    """A normalisation: RMSNorm has a weight only, LayerNorm a bias too."""
    return Row(name, "plain", (size,), bias, when)


def vector(name: str, size: Size, when: Size = 1) -> Row:
    """A bias that stands alone."""
    return Row(name, "plain", (0, size), 1, when)


KV_HEADS = "num_key_value_heads"
NARROWING = (KV_HEADS, "head_dim")
"""Settings by which attention is narrower or wider than the hidden size, where an architecture has
them: in a config.json of another they are strays that transformers reads past."""


REMEDY = "Take the model's own config.json."


class Settings:
    """A config.json with an architecture's defaults below it; None counts as absent."""

    OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
        "hidden_size": ("n_embd", "n_embed"),
        "num_hidden_layers": ("n_layer",),
        "num_attention_heads": ("n_head",),
        "max_position_embeddings": ("n_positions",),
        "num_local_experts": ("num_experts",),
    }

    def __init__(
        self,
        values: Mapping[str, object],
        defaults: Mapping[str, object],
        narrowing: Sequence[str] = NARROWING,
    ) -> None:
        strays = set(NARROWING) - set(narrowing)
        values = {name: value for name, value in values.items() if name not in strays}
        given = {name: value for name, value in values.items() if value is not None}
        for name, others in self.OTHER_NAMES.items():
            for other in others:
                if other in given:
                    given.setdefault(name, given[other])
        if values.get(KV_HEADS, 0) is None and "num_attention_heads" in given:
            # An explicit null says: as many as query heads. It is not the class's default.
            given[KV_HEADS] = given["num_attention_heads"]
        self._values = {**defaults, **given}
        self._model_type = str(values.get("model_type"))

    def size(self, key: str, otherwise: int | None = None) -> int:
        """A whole number of at least 1; else ConfigError."""
        value = self.whole(key, otherwise)
        if value < 1:
            raise self.error(key, value, f"must be 1 or more in a {self._model_type} model")
        return value

    def find(self, key: str) -> object | None:
        """The value under `key` or another name of it."""
        return self._values.get(key)

    def whole(self, key: str, otherwise: int | None = None) -> int:
        """A whole number; ConfigError where it is another value, or missing without `otherwise`."""
        value = self.find(key)
        if value is None and otherwise is not None:
            return otherwise
        if not isinstance(value, int):
            problem = "is missing" if value is None else "is not a whole number"
            follow = f"and the shapes of a {self._model_type} model follow from it"
            raise self.error(key, value, f"{problem}, {follow}")
        return int(value)

    def error(self, key: str, value: object, problem: str, remedy: str = REMEDY) -> ConfigError:
        """The error for a setting that no shapes follow from."""
        return ConfigError(f"config.json: {key}", value, problem, remedy)


@dataclass(frozen=True)
class Architecture:
    """One family of models, as transformers builds it with its language-model head."""

    layer: str
    """Name of a layer's module, with {} for its number."""
    before: tuple[Row, ...]
    """Tensors outside the layers, those that stand before them."""
    each: tuple[Row, ...]
    """Tensors of one layer, in module order."""
    after: tuple[Row, ...]
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Values of transformers' config class for settings that config.json lacks."""
    sizes: Callable[[Settings, Sizes], Sizes] = lambda settings, usual: {}
    """Function from the settings and the usual sizes to further sizes."""
    ia3: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """PEFT's default targets of IA3, by the end of their name: those scaled at their output, and
    feed-forward ones, scaled at their input."""
    ia3_is_ours: bool = False
    """Whether PEFT (0.21) names none, and these are ours."""
    narrowing: tuple[str, ...] = ()
    """Settings of `NARROWING` that its attention reads."""
    takes_prefix: Size = 1
    """Whether PEFT's prefix tuning runs on it, with as many key heads as PEFT takes."""
    refuses: tuple[str, ...] = ()
    """Settings that add tensors which no row names."""
