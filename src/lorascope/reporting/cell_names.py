"""What a configuration is called: its mode and size, and what else varies in the study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lorascope.adapters.kinds import method_of
from lorascope.comparing.results import CellKey
from lorascope.comparing.ruling import Findings
from lorascope.records import Dial, dial_text


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
        return ", ".join(dict.fromkeys([*(sizes or [cell.size()]), *self.adapter(cell)]))

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
        return [word for field, word in words.items() if field in self.varied and word]


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


def dials_of(cells: Iterable[CellKey]) -> list[Dial]:
    """Every dial of the methods of `cells`, once, in the order of the cells."""
    return list({dial.name: dial for cell in cells for dial, _ in cell.shown()}.values())
