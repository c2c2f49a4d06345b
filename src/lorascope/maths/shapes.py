"""Shapes of well-known decoders, so that adapters can be counted without downloading weights.

Numbers come from the models' public config.json files; tests compare the totals with the models
that transformers builds from such a config.
"""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.maths.parameters import matrix_parameters


@dataclass(frozen=True)
class LinearMatrix:
    """One linear map without bias, weight [out_features, in_features]."""

    name: str
    """Dotted, as transformers names it: model.layers.0.self_attn.q_proj."""
    in_features: int
    out_features: int


@dataclass(frozen=True)
class DecoderShape:
    """A decoder of the Llama family: no biases, two norms a layer, one norm at the end."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    """Heads of k and v; fewer than `heads` under grouped-query attention."""
    head_dim: int
    """Not always hidden / heads: gemma-2b has it so, gemma-7b does not."""
    intermediate: int
    vocabulary: int
    tied_head: bool
    """The head is the embedding matrix, and counts once."""
    gated: bool = True
    """The MLP has a gate beside up and down."""

    def layer_matrices(self, layer: int) -> tuple[LinearMatrix, ...]:
        """The linear matrices of one layer, in the order of the forward pass."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        features = {
            "self_attn.q_proj": (self.hidden, query),
            "self_attn.k_proj": (self.hidden, key_value),
            "self_attn.v_proj": (self.hidden, key_value),
            "self_attn.o_proj": (query, self.hidden),
            "mlp.gate_proj": (self.hidden, self.intermediate),
            "mlp.up_proj": (self.hidden, self.intermediate),
            "mlp.down_proj": (self.intermediate, self.hidden),
        }
        if not self.gated:
            del features["mlp.gate_proj"]
        return tuple(
            LinearMatrix(f"model.layers.{layer}.{name}", *shape) for name, shape in features.items()
        )

    def linear_matrices(self) -> tuple[LinearMatrix, ...]:
        """The linear matrices of all layers; embedding and head are not among them."""
        return tuple(m for layer in range(self.layers) for m in self.layer_matrices(layer))

    @property
    def total_parameters(self) -> int:
        """Every parameter once: embedding, head unless tied, linear matrices, norms."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_head else 2)
        norms = (2 * self.layers + 1) * self.hidden
        return embeddings + matrix_parameters(self.linear_matrices()) + norms


LLAMA_2_7B = DecoderShape(
    "Llama-2-7B", layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128,
    intermediate=11008, vocabulary=32000, tied_head=False,
)  # fmt: skip
LLAMA_2_13B = DecoderShape(
    "Llama-2-13B", layers=40, hidden=5120, heads=40, kv_heads=40, head_dim=128,
    intermediate=13824, vocabulary=32000, tied_head=False,
)  # fmt: skip
LLAMA_2_70B = DecoderShape(
    "Llama-2-70B", layers=80, hidden=8192, heads=64, kv_heads=8, head_dim=128,
    intermediate=28672, vocabulary=32000, tied_head=False,
)  # fmt: skip
GEMMA_2B = DecoderShape(
    "gemma-2b", layers=18, hidden=2048, heads=8, kv_heads=1, head_dim=256,
    intermediate=16384, vocabulary=256000, tied_head=True,
)  # fmt: skip

REFERENCE_SHAPES = (GEMMA_2B, LLAMA_2_7B, LLAMA_2_13B, LLAMA_2_70B)
"""What tables show beside the model at hand, by size."""
