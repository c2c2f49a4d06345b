"""A figure as a page shows it; drawing it takes matplotlib, which a quarter of a second imports."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.comparing.results import CellKey

Box = tuple[float, float, float, float]
"""Left, top, width and height in the coordinates of the SVG, whose y points down."""


@dataclass(frozen=True)
class Entry:
    """What a legend says of one look."""

    words: str
    series: int | None
    """The number of what is switched off with it; None where it explains more than that."""
    swatch: Box
    """What is shown beside the words."""


@dataclass(frozen=True)
class Scale:
    """One axis of a panel: how its numbers lie along it."""

    kind: str
    """linear, log; fixed where its ticks are those of the figure and no others."""
    low: float
    high: float
    joined: int
    """The first panel whose axis this one follows."""


@dataclass(frozen=True)
class Panel:
    """Axes as they are drawn."""

    box: Box
    x: Scale
    y: Scale


@dataclass(frozen=True)
class PlacedMark:
    """A mark, where it is drawn."""

    panel: int
    x: float
    y: float
    series: int | None
    cell: CellKey | None
    words: tuple[str, ...]
    curve: str = ""
    """Id of its line in the SVG; empty where it stands alone."""


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, good alone, and what a page makes it answer by."""

    svg: bytes
    box: Box
    """Of the SVG without its legend."""
    legend: tuple[Entry, ...] = ()
    panels: tuple[Panel, ...] = ()
    marks: tuple[PlacedMark, ...] = ()
    along: str = ""
    """What is said at a point of a curve, with {x} and {y} in place of its numbers."""
