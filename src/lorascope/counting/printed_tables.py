"""Parameter tables that people know from print, with the formula behind each cell.

Where print and formula disagree both are kept: a reader then sees how far a printed table carries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from lorascope.counting.architectures import ModelShape, WeightMatrix, model_shape
from lorascope.counting.parameters import (
    houlsby_adapter_parameters,
    lora_parameters,
    prefix_layer_parameters,
    prompt_tuning_parameters,
    square_matrix_rule,
)

GPT3_HIDDEN, GPT3_LAYERS = 12288, 96
GPT3 = model_shape({
    "model_type": "gpt2", "n_embd": GPT3_HIDDEN, "n_layer": GPT3_LAYERS, "n_head": 96,
    "n_positions": 2048, "vocab_size": 50257,
})  # fmt: skip
"""GPT-3 175B by its published geometry, built like GPT-2: its own configuration is not public."""


@dataclass(frozen=True)
class PaperRow:
    """One row of tables 4 and 15 of the LoRA paper (arXiv 2106.09685), GPT-3 175B."""

    method: str
    setting: str
    formula: str
    """d: hidden size, L: layers, r: rank or bottleneck, l_p and l_i: tokens before and inside."""
    printed_millions: float
    count: Callable[[ModelShape], int] = field(compare=False)
    """The formula, for any model."""
    matrices: int | None = None
    """LoRA: adapted d x d matrices a layer."""
    rank: int | None = None
    """LoRA: the rank."""

    @property
    def computed(self) -> int:
        """Parameters by the formula, for GPT-3."""
        return self.count(GPT3)

    @property
    def agrees(self) -> bool:
        """Whether the formula, rounded to the printed digit, is what was printed."""
        return round(self.computed / 1e6, 1) == self.printed_millions

    @property
    def is_cut_off(self) -> bool:
        """Whether the printed digit is the formula's, cut off instead of rounded."""
        return not self.agrees and math.floor(self.computed / 1e5) / 10 == self.printed_millions


def _prefix_embed(prefix: int, infix: int, printed: float) -> PaperRow:
    return PaperRow(
        "PrefixEmbed", f"l_p={prefix}, l_i={infix}", "d (l_p + l_i)", printed,
        lambda shape: prompt_tuning_parameters(shape, prefix + infix),
    )  # fmt: skip


def _prefix_layer(prefix: int, infix: int, printed: float) -> PaperRow:
    return PaperRow(
        "PrefixLayer", f"l_p={prefix}, l_i={infix}", "L d (l_p + l_i)", printed,
        lambda shape: prefix_layer_parameters(shape, prefix + infix),
    )  # fmt: skip


def _adapter(bottleneck: int, printed: float) -> PaperRow:
    return PaperRow(
        "Adapter-H", f"r={bottleneck}", "2 L (2 d r + r + d)", printed,
        lambda shape: houlsby_adapter_parameters(shape, bottleneck),
    )  # fmt: skip


def _lora(setting: str, matrices: int, rank: int, printed: float) -> PaperRow:
    def count(shape: ModelShape) -> int:
        square = WeightMatrix("square", shape.hidden, shape.hidden)
        return lora_parameters([square] * matrices * shape.layers, rank)

    formula = "2 d r L" if matrices == 1 else f"{matrices} x 2 d r L"
    return PaperRow("LoRA", setting, formula, printed, count, matrices, rank)


LORA_PAPER = (
    PaperRow("Fine-tune", "", "all", 175_255.8, lambda shape: shape.total_parameters),
    PaperRow("BitFit", "", "biases", 14.2, lambda shape: shape.bias_parameters),
    _prefix_embed(32, 8, 0.4),
    _prefix_embed(64, 8, 0.9),
    _prefix_embed(128, 8, 1.7),
    _prefix_embed(256, 8, 3.2),
    _prefix_embed(512, 8, 6.4),
    _prefix_layer(2, 2, 5.1),
    _prefix_layer(8, 0, 10.1),
    _prefix_layer(8, 8, 20.2),
    _prefix_layer(32, 4, 44.1),
    _prefix_layer(64, 0, 76.1),
    _adapter(1, 7.1),
    _adapter(4, 21.2),
    _adapter(8, 40.1),
    _adapter(16, 77.9),
    _adapter(64, 304.4),
    _lora("r_v=2", 1, 2, 4.7),
    _lora("r_q=r_v=1", 2, 1, 4.7),
    _lora("r_q=r_v=2", 2, 2, 9.4),
    _lora("r_q=r_k=r_v=r_o=1", 4, 1, 9.4),
    _lora("r_q=r_v=4", 2, 4, 18.8),
    _lora("r_q=r_k=r_v=r_o=2", 4, 2, 18.8),
    _lora("r_q=r_v=8", 2, 8, 37.7),
    _lora("r_q=r_k=r_v=r_o=4", 4, 4, 37.7),
    _lora("r_q=r_v=64", 2, 64, 301.9),
    _lora("r_q=r_k=r_v=r_o=64", 4, 64, 603.8),
)


@dataclass(frozen=True)
class ClassroomCell:
    """One cell of the classroom table "number of trainable parameters"."""

    rank: int
    size: str
    """As the table names it: 7B."""
    printed: str
    """As printed: 167K, 1M."""

    @property
    def computed(self) -> int:
        """The value by the table's rule, 2 r sqrt(N), which was found by fitting."""
        base_parameters = float(self.size.removesuffix("B")) * 1e9
        return round(square_matrix_rule(base_parameters, self.rank))


CLASSROOM_SIZES = ("7B", "13B", "70B", "180B")
_CLASSROOM_ROWS = {
    1: ("167K", "228K", "529K", "849K"),
    2: ("334K", "456K", "1M", "2M"),
    8: ("1M", "2M", "4M", "7M"),
    16: ("3M", "4M", "8M", "14M"),
    512: ("86M", "117M", "270M", "434M"),
}
CLASSROOM = tuple(
    ClassroomCell(rank, size, printed)
    for rank, row in _CLASSROOM_ROWS.items()
    for size, printed in zip(CLASSROOM_SIZES, row, strict=True)
)
