"""Parameter tables that people know from print, with the formula behind each cell.

Where print and formula disagree both are kept: a reader then sees how far a printed table carries.
What is printed stands in lora_paper.csv and classroom.csv.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

from lorascope.counting.architectures import ModelShape, WeightMatrix, table_shape
from lorascope.counting.parameters import (
    full_parameters,
    houlsby_adapter_parameters,
    lora_parameters,
    prefix_embed_parameters,
    prefix_layer_parameters,
    square_matrix_rule,
)

GPT3_HIDDEN, GPT3_LAYERS = 12288, 96
GPT3 = table_shape({
    "model_type": "gpt2", "n_embd": GPT3_HIDDEN, "n_layer": GPT3_LAYERS, "n_head": 96,
    "n_positions": 2048, "vocab_size": 50257,
})  # fmt: skip
"""GPT-3 175B by its published geometry, built like GPT-2: its own configuration is not public."""

COUNTS: Mapping[str, Callable[[ModelShape, int], int]] = {
    "Fine-tune": lambda shape, _: full_parameters(shape),
    "BitFit": lambda shape, _: shape.bias_parameters,
    "PrefixEmbed": prefix_embed_parameters,
    "PrefixLayer": prefix_layer_parameters,
    "Adapter-H": houlsby_adapter_parameters,
}
"""Method beside LoRA -> its formula over (model, size)."""


@dataclass(frozen=True)
class PaperRow:
    """One row of tables 4 and 15 of the LoRA paper (arXiv 2106.09685), GPT-3 175B."""

    method: str
    setting: str
    formula: str
    """d: hidden size, L: layers, r: rank or bottleneck, l_p and l_i: tokens before and inside."""
    printed_millions: float
    size: int = 0
    """Rank, bottleneck or tokens."""
    matrices: int | None = None
    """LoRA: adapted d x d matrices a layer."""

    @property
    def rank(self) -> int | None:
        """LoRA: the rank."""
        return self.size if self.matrices else None

    def count(self, shape: ModelShape) -> int:
        """Parameters by the formula, for any model."""
        if self.matrices is None:
            return COUNTS[self.method](shape, self.size)
        square = WeightMatrix("square", shape.hidden, shape.hidden)
        return lora_parameters([square] * self.matrices * shape.layers, self.size)

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


def _rows(name: str) -> Iterator[dict[str, str]]:
    return csv.DictReader((files("lorascope.counting") / name).read_text("utf-8").splitlines())


LORA_PAPER = tuple(
    PaperRow(
        row["method"], row["setting"], row["formula"], float(row["printed_millions"]),
        int(row["size"] or 0), int(row["matrices"]) if row["matrices"] else None,
    )
    for row in _rows("lora_paper.csv")
)  # fmt: skip
CLASSROOM = tuple(
    ClassroomCell(int(row["rank"]), size, row[size])
    for row in _rows("classroom.csv")
    for size in ("7B", "13B", "70B", "180B")
)
