"""How the figures look: colours, markers, lines, labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl

from lorascope.adapters.kinds import method_of
from lorascope.comparing.results import CellKey
from lorascope.comparing.ruling import Findings
from lorascope.reporting.cell_names import CellNames, varied_fields
from lorascope.reporting.figures.chart import Chart
from lorascope.reporting.figures.curves import Curve

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A7A7A")
"""Okabe and Ito's colours, told apart under all common colour blindness; yellow is too pale, and
black would vanish on a dark page."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
"""One an adapter kind. Plain dashes belong to the bare base."""
SPREAD = 0.3
"""Share of the step between two sizes over which curves stand apart, so that intervals are seen."""
BASE_LINE = (0, (5, 4))
CHANCE_LINE = (0, (1, 3))
NEUTRAL = "#666666"
"""Of legend entries that hold for every mode."""
INK = "#1b1b1b"
"""Of text and ticks."""
GRID = "#e4e4e4"
AXIS = "#9a9a9a"
PAPER = "#ffffff"

STYLE: Any = {
    "svg.hashsalt": "lorascope",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "text.parse_math": False,
    "path.simplify": False,  # A page reads each point of a curve off its path.
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": AXIS,
    "ytick.color": AXIS,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.edgecolor": AXIS,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Look:
    """What each mode and each curve is drawn with."""

    colors: dict[str, str]
    markers: dict[str, str]
    lines: dict[CellKey, Any]
    hollow: dict[CellKey, bool]
    """Whether its marks are empty: the fifth to eighth adapter kind."""
    labels: dict[CellKey, str]
    shifts: dict[CellKey, float]
    """Powers of two by which a curve stands beside its sizes."""


def mode_colors(findings: Findings) -> dict[str, str]:
    """Mode -> its colour, the same in every figure."""
    return {quant: PALETTE[i % len(PALETTE)] for i, quant in enumerate(_modes(findings))}


def mode_markers(findings: Findings) -> dict[str, str]:
    """Mode -> its marker: colour alone must not carry anything."""
    return {quant: MARKERS[i % len(MARKERS)] for i, quant in enumerate(_modes(findings))}


def _modes(findings: Findings) -> list[str]:
    return list(dict.fromkeys(score.cell.quant for score in findings.cells))


def choose_look(drawn: Sequence[Curve], findings: Findings) -> Look:
    """Colour and marker say the mode, line and fill the adapter kind."""
    kinds = _kinds(drawn)
    places = sorted({point.place for curve in drawn for point in curve.points})
    step = min((math.log2(b / a) for a, b in pairwise(places)), default=1.0)
    spread = SPREAD * min(step, 2.0)
    return Look(
        mode_colors(findings),
        mode_markers(findings),
        {c.key: LINES[kinds.index(_kind(c.key)) % len(LINES)] for c in drawn},
        {c.key: bool(kinds.index(_kind(c.key)) // len(LINES) % 2) for c in drawn},
        curve_labels(drawn),
        {c.key: spread * ((i + 0.5) / len(drawn) - 0.5) for i, c in enumerate(drawn)},
    )


def _kind(key: CellKey) -> tuple[str, ...]:
    """What sets the adapter kind of a curve apart, with the words for it."""
    dials = tuple(dial.words(value) for dial, value in key.shown())
    return key.targets, method_of(key.method).label, *dials, key.variant, key.serve


def curve_labels(drawn: Sequence[Curve]) -> dict[CellKey, str]:
    """The mode of each curve, and of its adapter kind what varies in this study."""
    names = CellNames(varied_fields(curve.key for curve in drawn))
    return {c.key: ", ".join([c.key.quant, *names.adapter(c.key)]) for c in drawn}


def _kinds(drawn: Sequence[Curve]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(_kind(curve.key) for curve in drawn))


@contextmanager
def style() -> Iterator[None]:
    """Our settings alone, whatever the machine's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def blank_figure(height: float = 4.4) -> Chart:
    """An empty figure of the reports' width, without a window."""
    return Chart(8, height)


def bars(
    places: Sequence[float], ends: Sequence[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """Upright bars as one line for `Axes.plot`, which is broken between two of them: a thousand
    lines take a second to draw."""
    x = [value for place in places for value in (place, place, math.nan)]
    return x, [value for low, high in ends for value in (low, high, math.nan)]
