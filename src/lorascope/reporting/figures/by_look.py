"""The looks of a settling, a row each: what was seen, and the limit that its test sets beside the
margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from lorascope.comparing.results import CellKey, Measure
from lorascope.comparing.ruling import Findings
from lorascope.comparing.settling import Look, Settling
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.chart import Chart
from lorascope.reporting.figures.style import AXIS, GRID, INK, PAPER, blank_figure
from lorascope.reporting.settling_text import end_of, limit_of, seeds_of_looks

WORST_MARGINS = 4.0
"""What lies farther on the worse side is an arrow: hopeless candidates squash no others."""
BEST_MARGINS = 3.0
ROW_INCHES = (0.115, 0.19)
"""Height of a row: the least, and the most."""
ROWS_INCHES = 9.5
"""Height that many rows share, so that they fit on a printed page."""
FRAME_INCHES = 1.3
"""Legend above and axis below them."""
LINE_INCHES = 0.15
"""Of a candidate's name."""
NAME_LETTERS = 24
BETWEEN = 0.5
"""Rows between two candidates."""
MARKS = {
    "accepted": ("o", INK),
    "dropped": ("x", PAPER),
    "undecided": ("o", PAPER),
    "out of reach": ("v", PAPER),
    "no gain over the base": ("s", PAPER),
}
"""What a look makes of its candidate (`end_of`) -> marker, and what fills it."""


def looks_by_cell(settling: Settling | None) -> dict[CellKey, list[Look]]:
    """Each candidate's looks in the order in which they were taken; candidates by their first."""
    found: dict[CellKey, list[Look]] = {}
    for look in settling.looks if settling else ():
        found.setdefault(look.cell, []).append(look)
    return found


def draw_by_look(findings: Findings) -> Chart:
    """A row a look; a sentence where there are none."""
    settling, measure = findings.decision.settling, findings.measure
    looks = looks_by_cell(settling)
    if settling is None or not looks:
        figure = blank_figure(1.0)
        figure.text(0.5, 0.5, "No candidate was looked at.", ha="center")
        return figure
    least, most = ROW_INCHES
    row = min(most, max(least, ROWS_INCHES / len(settling.looks)))
    names_of = CellNames.of(findings)
    names = {cell: wrap(names_of.name(cell), NAME_LETTERS) for cell in looks}
    tops, rows = _tops(looks, {cell: LINE_INCHES * len(n) / row for cell, n in names.items()})
    figure = blank_figure(row * rows + FRAME_INCHES)
    axes = figure.add_subplot()
    axes.set_ylim(rows + 0.25, 0.25)
    _draw_frame(axes, settling.looks, measure, findings.decision.margin)
    for cell, taken in looks.items():
        _write(
            axes, "\n".join(names[cell]), (0.0, tops[cell] + 1), (-48, 4.5), ha="right", va="top"
        )
        for place, look in enumerate(taken, start=1):
            row = tops[cell] + place
            x = _draw_look(axes, row, look, measure)
            figure.mark(axes, (x, row), *_say(look, names_of.name(cell), measure), cell=cell)
        ships = ", ships" if cell == settling.accepted else ""
        words = end_of(taken[-1]) + ships
        _write(axes, words, (1.0, tops[cell] + len(taken)), (8, 0), va="center_baseline")
        axes.axhline(tops[cell] + 0.25, color=GRID, linewidth=0.8, zorder=0)
    _name_rows(axes, looks, tops)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8.5)
    return figure


def _tops(
    looks: Mapping[CellKey, Sequence[Look]], lines: Mapping[CellKey, float]
) -> tuple[dict[CellKey, float], float]:
    """Where each candidate's rows begin, and where all end: none is lower than its name."""
    tops, top = {}, 0.0
    for cell, taken in looks.items():
        tops[cell] = top
        top += max(len(taken), lines[cell]) + BETWEEN
    return tops, top


def _draw_frame(axes: Axes, looks: Sequence[Look], measure: Measure, margin: float) -> None:
    """The view, the margin, what lies beyond it, and the words for all of it."""
    edge = -measure.sign * measure.scale * margin
    low, high = _view(looks, measure, margin)
    axes.set_xlim(low, high)
    worse = (low, edge) if edge < 0 else (edge, high)
    axes.axvspan(*worse, color=GRID, linewidth=0, zorder=-1, label="worse by more than the margin")
    axes.axvline(edge, color=INK, linewidth=1.2, zorder=1)
    axes.axvline(0.0, color=AXIS, linewidth=0.8, zorder=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:+g}".replace("-", "−") if x else "0")
    )
    axes.set_xlabel(f"Difference to the reference on validation items, {measure.step}")
    above = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    _write(axes, "margin", (edge, 1.0), (0, 3), **above)
    _write(axes, "reference", (0.0, 1.0), (0, 3), **above)
    axes.plot(
        [], [], "o-", color=AXIS, mec=INK, mfc=PAPER, linewidth=3,
        label="difference, 95 % interval",
    )  # fmt: skip
    axes.plot(
        [], [], "|-", color=INK, markersize=8, linewidth=0.8, label="limit of the look's test"
    )


def _view(looks: Sequence[Look], measure: Measure, margin: float) -> tuple[float, float]:
    """A few margins at most to both sides."""
    harms = [
        -measure.sign * end / margin
        for look in looks
        for end in (*look.difference.ends, limit_of(look, measure))
    ]
    worse = min(WORST_MARGINS, max(1.5, 1.05 * max(harms)))
    better = min(BEST_MARGINS, max(0.5, -1.05 * min(harms)))
    edges = [-measure.sign * measure.scale * margin * harm for harm in (worse, -better)]
    return min(edges), max(edges)


def _say(look: Look, name: str, measure: Measure) -> tuple[str, ...]:
    """What is to be read off, as the table of looks writes it."""
    return (
        f"{name}, {look.seeds} seeds: {end_of(look)}",
        f"difference {measure.difference(look.difference.value)} {measure.step}",
        f"95 % interval {measure.difference_interval(look.difference.ends)}",
        f"limit of the look's test {measure.difference(limit_of(look, measure))}",
    )


def _draw_look(axes: Axes, y: float, look: Look, measure: Measure) -> float:
    """The interval, the limit and the difference; an arrow for each end that lies outside. Returns
    where the difference is drawn."""
    low, high = axes.get_xlim()
    value, limit, *ends = (
        measure.scale * x
        for x in (look.difference.value, limit_of(look, measure), *look.difference.ends)
    )

    def inside(x: float) -> float:
        return min(max(x, low), high)

    axes.plot([*map(inside, ends)], [y, y], color=AXIS, linewidth=3, zorder=2)
    axes.plot([inside(value), inside(limit)], [y, y], color=INK, linewidth=0.8, zorder=3)
    for x in (*ends, limit):
        if x != inside(x):
            axes.plot(inside(x), y, "<" if x < low else ">", mfc=PAPER, **ARROW)
    if limit == inside(limit):
        axes.plot(limit, y, "|", color=INK, markersize=8, mew=1.4, zorder=4)
    if value == inside(value):
        marker, fill = MARKS[end_of(look)]
        axes.plot(value, y, marker, color=INK, mfc=fill, markersize=5, zorder=5)
        return value
    left = value < low
    axes.plot(inside(value), y, "<" if left else ">", mfc=INK, **ARROW)
    _write(
        axes, measure.difference(look.difference.value), (inside(value), y), (7 if left else -7, 0),
        xycoords="data", ha="left" if left else "right", va="center_baseline",
        bbox={"facecolor": GRID, "edgecolor": "none", "pad": 0.8},
    )  # fmt: skip
    return inside(value)


ARROW: dict[str, Any] = {"color": INK, "markersize": 4.5, "clip_on": False, "zorder": 5}
"""At the edge, for what lies outside."""


def _name_rows(
    axes: Axes, looks: Mapping[CellKey, Sequence[Look]], tops: Mapping[CellKey, float]
) -> None:
    """The number of seeds of each, and whether so many were looked at before."""
    places, labels = [], []
    for cell, taken in looks.items():
        places += [tops[cell] + place for place in range(1, len(taken) + 1)]
        labels += seeds_of_looks(taken)
    axes.set_yticks(places, labels, fontsize=8)
    axes.tick_params(axis="y", length=0, pad=6)
    _write(axes, "seeds", (0.0, 1.0), (-6, 3), xycoords="axes fraction", ha="right", va="bottom")


def _write(
    axes: Axes, words: str, place: tuple[float, float], points: tuple[float, float], **how: Any
) -> None:
    """Small, so many points beside a place; by default a share of the width and a row."""
    how = {"xycoords": axes.get_yaxis_transform(), **how}
    axes.annotate(words, place, points, textcoords="offset points", fontsize=8, **how)
