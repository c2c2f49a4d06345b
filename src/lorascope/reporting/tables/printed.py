"""Printed parameter tables beside their formula and the exact counts of real models.

These tables are of no study: they are the same in every report.
"""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.targets import select
from lorascope.bases.known_configs import known_config
from lorascope.config import Targets
from lorascope.counting.architectures import ModelShape, model_shape
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


@dataclass(frozen=True)
class PaperTableRow:
    """One row of the LoRA paper's GPT-3 table."""

    method: str
    setting: str
    formula: str
    printed_millions: float
    computed_parameters: int
    difference: str | None
    real_parameters: int | None
    """The same method on Falcon-180B, counted on its own matrices; None where it has none such."""


@dataclass(frozen=True)
class ClassroomTableRow:
    """One cell of the classroom table."""

    rank: int
    size: str
    printed: str
    rule_parameters: int
    model: str
    query_value_parameters: int
    query_value_modules: str
    all_linear_parameters: int
    all_linear_by_rule: float


def paper_table() -> Table[PaperTableRow]:
    """The LoRA paper's table for GPT-3 175B."""
    falcon = model_shape(known_config(REAL_MODELS["180B"][1]))
    return Table(
        (
            Column("method", "Method", right=False),
            Column("setting", "Setting", right=False),
            Column("formula", "Formula", right=False),
            Column("printed_millions", "Printed (M)", _millions),
            Column("computed_parameters", "By formula", units.count),
            Column("difference", "Print against formula", right=False),
            Column("real_parameters", "Falcon-180B, exact", units.count),
        ),
        [
            PaperTableRow(
                row.method,
                row.setting,
                row.formula,
                row.printed_millions,
                row.computed,
                _difference(row),
                _on_real_model(row, falcon),
            )
            for row in LORA_PAPER
        ],
    )


def _millions(value: float) -> str:
    return f"{value:,.1f}"


def _difference(row: PaperRow) -> str | None:
    """How print and formula differ; None where they do not."""
    if row.agrees:
        return None
    if row.is_cut_off:
        return "cut off, not rounded"
    per_cent = 100 * (row.printed_millions * 1e6 / row.computed - 1)
    return f"{per_cent:+.2f} %" if abs(per_cent) < 0.1 else f"{per_cent:+.1f} %"


def _on_real_model(row: PaperRow, shape: ModelShape) -> int | None:
    if row.rank is None:
        return row.count(shape)
    # v alone cannot be adapted where query, key and value are one matrix.
    chosen = {2: FUSED_QUERY_VALUE, 4: LoraConfig(targets=Targets.attention)}.get(row.matrices or 0)
    return None if chosen is None else _adapter(shape, chosen, row.rank)


def classroom_table() -> Table[ClassroomTableRow]:
    """Parameters by model size and rank."""
    shapes = {size: model_shape(known_config(file)) for size, (_, file) in REAL_MODELS.items()}
    return Table(
        (
            Column("rank", "Rank"),
            Column("size", "Size", right=False),
            Column("printed", "Printed"),
            Column("rule_parameters", "Rule 2 r sqrt(N)", units.count),
            Column("model", "Real model", right=False),
            Column("query_value_parameters", "On q and v, exact", units.count),
            Column("query_value_modules", "Modules", right=False),
            Column("all_linear_parameters", "On all linear, exact", units.count),
            Column("all_linear_by_rule", "Exact / rule", units.small_percent),
        ),
        [_classroom_row(cell, shapes[cell.size]) for cell in CLASSROOM],
    )


def _classroom_row(cell: ClassroomCell, shape: ModelShape) -> ClassroomTableRow:
    fused = any(m.name.endswith(".query_key_value") for m in shape.matrices)
    query_value = FUSED_QUERY_VALUE if fused else LoraConfig(targets=Targets.q_v)
    everywhere = _adapter(shape, LoraConfig(targets=Targets.all_linear), cell.rank)
    return ClassroomTableRow(
        rank=cell.rank,
        size=cell.size,
        printed=cell.printed,
        rule_parameters=cell.computed,
        model=REAL_MODELS[cell.size][0],
        query_value_parameters=_adapter(shape, query_value, cell.rank),
        query_value_modules="query_key_value" if fused else "q_proj, v_proj",
        all_linear_parameters=everywhere,
        all_linear_by_rule=everywhere / cell.computed,
    )


def _adapter(shape: ModelShape, lora: LoraConfig, rank: int) -> int:
    return lora_parameters(select(shape.linear_shapes, lora), rank)
