"""What a configuration is called, in sentences and in the columns of every table: its mode and
size, and what else varies in the study.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lorascope.adapters.kinds import method_of
from lorascope.comparing.results import CellKey
from lorascope.comparing.ruling import Findings
from lorascope.config import APART
from lorascope.records import Dial, dial_text
from lorascope.reporting.tables.table import Column


@dataclass(frozen=True)
class CellNames:
    """Names the cells of one study."""

    varied: frozenset[str]
    """Fields and dials in which adapters differ."""

    @classmethod
    def of(cls, findings: Findings) -> CellNames:
        """For all cells of `findings`."""
        return cls(varied_fields(score.cell for score in findings.cells))

    def name(self, cell: CellKey) -> str:
        """nf4, rank 64; or nf4, bare base."""
        if cell.base:
            return f"{cell.quant}, bare base"
        return ", ".join(dict.fromkeys([cell.quant, cell.size(), *self.adapter(cell)]))

    def short(self, cell: CellKey) -> str:
        """Inside a figure whose colours say the mode: r 64."""
        if cell.base:
            return "base"
        sizes = [f"{d.letter} {dial_text(value)}" for d, value in cell.shown() if d.is_axis]
        form = [] if cell.serve == APART else [cell.serve]
        others = self.adapter(cell.apart)
        return ", ".join(dict.fromkeys([*(sizes or [cell.size()]), *others, *form]))

    def full(self, cell: CellKey) -> str:
        """With all numbers, even those that do not vary: what to ship must be said in full."""
        if cell.base:
            return self.name(cell)
        numbers = [d.words(v) for d, v in cell.shown() if not isinstance(v, bool)]
        words = [cell.quant, cell.size(), *numbers, *self.adapter(cell)]
        return ", ".join(dict.fromkeys(words))

    def adapter(self, cell: CellKey) -> list[str]:
        """What sets the adapter apart from others of its size."""
        words = {"method": method_of(cell.method).label, "targets": cell.targets}
        words |= {d.name: d.words(value) for d, value in cell.shown() if not d.is_axis}
        words["variant"] = cell.variant
        named = [word for field, word in words.items() if field in self.varied and word]
        return [*named, *([] if cell.serve == APART else [f"served {cell.serve}"])]


def varied_fields(cells: Iterable[CellKey]) -> frozenset[str]:
    """Fields and dials in which the adapters among `cells` differ."""
    adapters = [cell for cell in cells if not cell.base]
    found = {
        field
        for field in ("method", "targets", "variant")
        if len({getattr(cell, field) for cell in adapters}) > 1
    }
    for dial in dials_of(adapters):
        # A dial that the other methods lack says nothing beside the method.
        values = {cell.dial(dial.name) for cell in adapters} - {None}
        found |= {dial.name} if len(values) > 1 else set()
    return frozenset(found)


def has_forms(cells: Iterable[CellKey]) -> bool:
    """Whether some are merged and stored in a mode of their own."""
    return any(cell.serve != APART for cell in cells)


def dials_of(cells: Iterable[CellKey]) -> list[Dial]:
    """Every dial of the methods of `cells`, once, in the order of the cells."""
    return list({dial.name: dial for cell in cells for dial, _ in cell.shown()}.values())


def cell_columns(
    cells: Iterable[CellKey], *, targets: bool | None = None, role: str = "cell"
) -> tuple[Column, ...]:
    """All in CSV; in text the mode, numbers, and what varies.

    Args:
        targets: whether text has them; None where they vary.
        role: the rows' field that holds their configuration.
    """
    cells = list(cells)
    varied = varied_fields(cells)

    def named(field: str, header: str, in_text: bool) -> Column:
        def get(row: Any) -> Any:
            cell = getattr(row, role)
            return None if field == "serve" and cell.base else getattr(cell, field) or None

        return Column(field, header, right=False, in_text=in_text, get=get)

    def of_dial(dial: Dial) -> Column:
        values = {cell.dial(dial.name) for cell in cells} - {None}
        number = not any(isinstance(value, bool | str) for value in values)
        return Column(
            dial.name, dial.header, dial_text, right=number,
            in_text=number or dial.name in varied,
            get=lambda row: getattr(row, role).dial(dial.name),
        )  # fmt: skip

    return (
        named("quant", "Mode", True),
        named("method", "Method", "method" in varied),
        named("targets", "Targets", "targets" in varied if targets is None else targets),
        *map(of_dial, dials_of(cells)),
        named("variant", "Settings", "variant" in varied),
        *([named("serve", "Served", True)] if has_forms(cells) else []),
    )


def machine_columns(role: str, cells: Iterable[CellKey]) -> tuple[Column, ...]:
    """The same for CSV alone, of the configuration that rows have under `role`."""
    columns = cell_columns(cells, role=role)
    return tuple(replace(one, key=f"{role}_{one.key}", in_text=False) for one in columns)
