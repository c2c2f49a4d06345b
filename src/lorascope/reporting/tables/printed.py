"""Printed parameter tables beside their formula and the exact counts of real models.

These tables are of no study: they are the same in every report.
"""

from __future__ import annotations

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.targets import select
from lorascope.bases.known_configs import known_config
from lorascope.config import Targets
from lorascope.counting.architectures import ModelShape, table_shape
from lorascope.counting.parameters import lora_parameters
from lorascope.counting.printed_tables import CLASSROOM, LORA_PAPER, ClassroomCell, PaperRow
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table

REAL_MODELS = {
    "7B": ("Llama-2-7B", "llama-2-7b"),
    "13B": ("Llama-2-13B", "llama-2-13b"),
    "70B": ("Llama-2-70B", "llama-2-70b"),
    "180B": ("Falcon-180B", "falcon-180b"),
}
"""Size -> name for people and known configuration."""

FUSED_QUERY_VALUE = LoraConfig(targets=Targets.modules, modules=["query_key_value"])
"""What stands for q and v where the model has them in one matrix with k."""


def paper_table() -> Table[PaperRow]:
    """The LoRA paper's table for GPT-3 175B, and the same methods on Falcon-180B's matrices."""
    falcon = table_shape(known_config(REAL_MODELS["180B"][1]))
    return Table(
        (
            Column("method", "Method", right=False),
            Column("setting", "Setting", right=False),
            Column("formula", "Formula", right=False),
            Column("printed_millions", "Printed (M)", lambda value: f"{value:,.1f}"),
            Column("computed_parameters", "By formula", units.count, get=lambda row: row.computed),
            Column("difference", "Print against formula", right=False, get=_difference),
            Column("real_parameters", "Falcon-180B, exact", units.count,
                   get=lambda row: _on_real_model(row, falcon)),
        ),
        LORA_PAPER,
    )  # fmt: skip


def _difference(row: PaperRow) -> str | None:
    if row.agrees:
        return None
    if row.is_cut_off:
        return "cut off, not rounded"
    per_cent = 100 * (row.printed_millions * 1e6 / row.computed - 1)
    return f"{per_cent:+.2f} %" if abs(per_cent) < 0.1 else f"{per_cent:+.1f} %"


def _on_real_model(row: PaperRow, shape: ModelShape) -> int | None:
    """None where the model has no such matrices."""
    if row.rank is None:
        return row.count(shape)
    # v alone cannot be adapted where query, key and value are one matrix.
    chosen = {2: FUSED_QUERY_VALUE, 4: LoraConfig(targets=Targets.attention)}.get(row.matrices or 0)
    return None if chosen is None else _adapter(shape, chosen, row.rank)


def classroom_table() -> Table[ClassroomCell]:
    """Parameters by model size and rank."""
    shapes = {size: table_shape(known_config(file)) for size, (_, file) in REAL_MODELS.items()}
    fused = {
        size: any(matrix.name.endswith(".query_key_value") for matrix in shape.matrices)
        for size, shape in shapes.items()
    }

    def query_value(cell: ClassroomCell) -> int:
        lora = FUSED_QUERY_VALUE if fused[cell.size] else LoraConfig(targets=Targets.q_v)
        return _adapter(shapes[cell.size], lora, cell.rank)

    def everywhere(cell: ClassroomCell) -> int:
        return _adapter(shapes[cell.size], LoraConfig(targets=Targets.all_linear), cell.rank)

    return Table(
        (
            Column("rank", "Rank"),
            Column("size", "Size", right=False),
            Column("printed", "Printed"),
            Column("rule_parameters", "Rule 2 r sqrt(N)", units.count, get=lambda c: c.computed),
            Column("model", "Real model", right=False, get=lambda c: REAL_MODELS[c.size][0]),
            Column("query_value_parameters", "On q and v, exact", units.count, get=query_value),
            Column("query_value_modules", "Modules", right=False,
                   get=lambda c: "query_key_value" if fused[c.size] else "q_proj, v_proj"),
            Column("all_linear_parameters", "On all linear, exact", units.count, get=everywhere),
            Column("all_linear_by_rule", "Exact / rule", units.small_percent,
                   get=lambda c: everywhere(c) / c.computed),
        ),
        CLASSROOM,
    )  # fmt: skip


def _adapter(shape: ModelShape, lora: LoraConfig, rank: int) -> int:
    return lora_parameters(select(shape.parts, lora), rank)
