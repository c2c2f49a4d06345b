"""Accuracy against memory with the Pareto frontier: what is worth the bytes it takes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from lorascope.comparing.costs import COSTS
from lorascope.comparing.results import FrontierPoint
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.by_rank import score_label
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
Scales = tuple[float, float]
"""Bytes a unit of the axis across, and what scores are multiplied by."""


def draw_by_memory(findings: Findings) -> Figure:
    """Scores against memory. How full a mark is says how surely it is on the frontier."""
    figure = blank_figure()
    drawn = [name for name in MEMORIES if findings.frontiers.get(name)] or [MEMORIES[0]]
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, drawn, strict=True):
        _draw_frontier(axes, findings, name)
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


def _draw_frontier(axes: Axes, findings: Findings, name: Cost) -> None:
    points = sorted(findings.frontiers.get(name, ()), key=lambda p: (p.cost, p.cell))
    bytes_a_unit, unit = units.byte_unit(max((p.cost for p in points), default=1.0))
    axes.set_xlabel(f"{COSTS[name].words.capitalize()}, {unit}")
    factor = findings.measure.scale
    colors, markers = mode_colors(findings), mode_markers(findings)
    best = [(p.cost / bytes_a_unit, factor * p.score) for p in points if p.on_frontier]
    if best:
        axes.step(*zip(*best, strict=True), where="post", color=AXIS, linewidth=1.2, zorder=1)
    for point in points:
        position = point.cost / bytes_a_unit, factor * point.score
        color = colors[point.cell.quant]
        axes.plot(
            *position, markers[point.cell.quant], color=color, mfc=PAPER, markersize=6.5, zorder=2
        )
        axes.plot(
            *position, markers[point.cell.quant], markersize=6.5, mec=color, mew=0,
            mfc=to_rgba(color, round(point.probability, 2)), zorder=3,
        )  # fmt: skip
    _ring(axes, findings, points, (bytes_a_unit, factor))
    axes.margins(x=0.12, y=0.08)
    _name_points(axes, points, bytes_a_unit, factor, CellNames.of(findings))


def _name_points(
    axes: Axes,
    points: Sequence[FrontierPoint],
    bytes_a_unit: float,
    factor: float,
    names: CellNames,
) -> None:
    """Names those on the frontier, save where two names would stand on each other."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    written: list[tuple[float, float]] = []
    for point in (p for p in points if p.on_frontier):
        x, y = point.cost / bytes_a_unit, factor * point.score
        place = (x - left) / (right - left), (y - low) / (high - low)
        if any(_collide(place, other) for other in written):
            continue
        written.append(place)
        axes.annotate(
            names.short(point.cell), (x, y), fontsize=8, xytext=(-6, 5),
            textcoords="offset points", ha="right", zorder=4,
        )  # fmt: skip


def _collide(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether the names of points at these shares of the axes would overlap."""
    return all(abs(a - b) < space for a, b, space in zip(one, other, LABEL_SPACE, strict=True))


def _ring(axes: Axes, findings: Findings, points: Sequence[FrontierPoint], scales: Scales) -> None:
    """Around the recommended configuration."""
    for point in points:
        if point.cell == findings.decision.recommended:
            x, y = point.cost / scales[0], scales[1] * point.score
            axes.plot(x, y, "o", color=INK, mfc="none", markersize=13, mew=1.2, zorder=5)
