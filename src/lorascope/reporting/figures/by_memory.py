"""Accuracy against memory with the Pareto frontier: what is worth the bytes it takes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from lorascope.comparing.costs import COSTS
from lorascope.comparing.results import CellKey, FrontierPoint
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.by_rank import score_label
from lorascope.reporting.figures.chart import Chart
from lorascope.reporting.figures.curves import read_off
from lorascope.reporting.figures.style import (
    AXIS,
    INK,
    NEUTRAL,
    PAPER,
    blank_figure,
    mode_colors,
    mode_markers,
)

MEMORIES = (Cost.serving_bytes, Cost.training_peak_bytes)
"""Costs that are drawn, a panel each."""
LABEL_SPACE = (0.1, 0.045)
"""Shares of an axis's width and height that a name takes."""
LETTER_SPACE = 0.01
"""Share of a figure's width that a letter of a name takes."""


def draw_by_memory(findings: Findings) -> Chart:
    """Scores against memory. How full a mark is says how surely it is on the frontier."""
    figure = blank_figure()
    drawn = [name for name in MEMORIES if findings.frontiers.get(name)] or [MEMORIES[0]]
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, drawn, strict=True):
        _draw_frontier(axes, findings, name, figure)
    panels[0].set_ylabel(score_label(findings.measure))
    for quant, color in mode_colors(findings).items():
        panels[0].plot([], [], mode_markers(findings)[quant], color=color, label=quant)
    panels[0].plot([], [], color=AXIS, linewidth=1.2, label="frontier")
    panels[0].plot([], [], "o", color=NEUTRAL, mfc=NEUTRAL, label="surely on it")
    panels[0].plot([], [], "o", color=NEUTRAL, mfc=PAPER, label="surely not")
    if findings.decision.recommended is not None:
        ring = {"color": INK, "mfc": "none", "markersize": 11, "mew": 1.2}
        panels[0].plot([], [], "o", label="recommended", **ring)
    figure.legend(loc="outside right upper")
    return figure


def _draw_frontier(axes: Axes, findings: Findings, name: Cost, figure: Chart) -> None:
    points = sorted(findings.frontiers.get(name, ()), key=lambda p: (p.cost, p.cell))
    bytes_a_unit, unit = units.byte_unit(max((p.cost for p in points), default=1.0))
    axes.set_xlabel(f"{COSTS[name].words.capitalize()}, {unit}")
    factor = findings.measure.scale
    drawn = [(p, (p.cost / bytes_a_unit, factor * p.score)) for p in points]
    best = [(point.cell, place) for point, place in drawn if point.on_frontier]
    if best:
        steps = zip(*(place for _, place in best), strict=True)
        line = axes.step(*steps, where="post", color=AXIS, linewidth=1.2, zorder=1)
        figure.belongs(line, "frontier")
    _draw_points(axes, findings, drawn, figure)
    for point, place in drawn:
        if point.cell == findings.decision.recommended:
            ring = axes.plot(*place, "o", color=INK, mfc="none", markersize=13, mew=1.2, zorder=5)
            figure.belongs(ring, "recommended")
    axes.margins(x=0.12, y=0.08)
    _name_points(axes, findings, best, figure)
    _say_points(axes, findings, drawn, figure)


Drawn = Sequence[tuple[FrontierPoint, tuple[float, float]]]
"""Points, and where they stand in the numbers of the axes."""


def _draw_points(axes: Axes, findings: Findings, drawn: Drawn, figure: Chart) -> None:
    colors, markers = mode_colors(findings), mode_markers(findings)
    marks: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for point, place in drawn:
        marks.setdefault((point.cell.quant, round(point.probability, 2)), []).append(place)
    # One stroke for all marks that look the same: of a thousand each would take its own time.
    for (quant, fullness), places in marks.items():
        xy, color, marker = tuple(zip(*places, strict=True)), colors[quant], markers[quant]
        artists = axes.plot(*xy, marker, color=color, mfc=PAPER, markersize=6.5, zorder=2)
        filled = to_rgba(color, fullness)
        artists += axes.plot(*xy, marker, markersize=6.5, mec=color, mew=0, mfc=filled, zorder=3)
        figure.belongs(artists, quant)


def _say_points(axes: Axes, findings: Findings, drawn: Drawn, figure: Chart) -> None:
    names, measure = CellNames.of(findings), findings.measure
    scores = {score.cell: score.test(measure) for score in findings.cells}
    for point, place in drawn:
        estimate = scores[point.cell]
        kind = COSTS[point.cost_name]
        figure.mark(
            axes, place, names.name(point.cell),
            *(read_off(estimate, measure) if estimate else ()),
            f"{kind.words} {units.size(point.cost)}",
            f"on the frontier in {units.percent(point.probability)} % of resampled item sets",
            series=point.cell.quant, cell=point.cell,
        )  # fmt: skip


def _name_points(
    axes: Axes,
    findings: Findings,
    named: Sequence[tuple[CellKey, tuple[float, float]]],
    figure: Chart,
) -> None:
    """A name on the left of each point, save where it would stand on another or on the axis."""
    names = CellNames.of(findings)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    written: list[tuple[float, float]] = []
    room = LETTER_SPACE * len(figure.axes)
    for cell, (x, y) in named:
        place = (x - left) / (right - left), (y - low) / (high - low)
        is_cut = place[0] < room * len(names.short(cell))
        if is_cut or any(_collide(place, other) for other in written):
            continue
        written.append(place)
        written_beside = axes.annotate(
            names.short(cell), (x, y), fontsize=8, xytext=(-6, 5), textcoords="offset points",
            ha="right", zorder=4,
        )  # fmt: skip
        figure.belongs([written_beside], cell.quant)


def _collide(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether names at these shares of the axes would overlap."""
    return all(abs(a - b) < space for a, b, space in zip(one, other, LABEL_SPACE, strict=True))
