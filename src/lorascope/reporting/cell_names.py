"""What a configuration is called: its mode and rank, and what else varies in the study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from lorascope.comparing.results import Cell
from lorascope.comparing.ruling import Findings
from lorascope.reporting import units


@dataclass(frozen=True)
class CellNames:
    """Names the cells of one study."""

    varied: frozenset[str]
    """Fields of `Cell` in which adapters differ."""

    @classmethod
    def of(cls, findings: Findings) -> CellNames:
        """For all cells of `findings`."""
        return cls(varied_fields(score.cell for score in findings.cells))

    def name(self, cell: Cell) -> str:
        """nf4, rank 64; or nf4, bare base."""
        if cell.is_base:
            return f"{cell.quant}, bare base"
        return ", ".join([cell.quant, f"rank {cell.rank}", *self.adapter(cell)])

    def short(self, cell: Cell) -> str:
        """Inside a figure whose colours say the mode: r 64."""
        return "base" if cell.is_base else ", ".join([f"r {cell.rank}", *self.adapter(cell)])

    def full(self, cell: Cell) -> str:
        """With alpha even where it does not vary: what to ship must be said in full."""
        if cell.is_base:
            return self.name(cell)
        words = [cell.quant, f"rank {cell.rank}", f"alpha {units.number(cell.alpha)}"]
        return ", ".join([*words, *(w for w in self.adapter(cell) if not w.startswith("alpha"))])

    def adapter(self, cell: Cell) -> list[str]:
        """What sets the adapter apart from others of its rank."""
        words = {
            "targets": cell.targets,
            "alpha": f"alpha {units.number(cell.alpha)}",
            "rslora": "rsLoRA" if cell.rslora else "",
            "dora": "DoRA" if cell.dora else "",
            "variant": cell.variant,
        }
        return [word for field, word in words.items() if field in self.varied and word]


def varied_fields(cells: Iterable[Cell]) -> frozenset[str]:
    """Fields in which the adapters among `cells` differ."""
    adapters = [cell for cell in cells if not cell.is_base]
    named = {field.name for field in fields(Cell)} - {"quant", "rank"}
    return frozenset(f for f in named if len({getattr(cell, f) for cell in adapters}) > 1)
