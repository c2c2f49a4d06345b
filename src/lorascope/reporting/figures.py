"""Accuracy against rank and against memory, as SVG whose bytes depend on the numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.accuracy_table import AccuracyRow
from lorascope.reporting.curves import Curve, Point, curves, scored_by_accuracy, value
from lorascope.reporting.figure_style import (
    BASE_LINE,
    NEUTRAL,
    Look,
    blank_figure,
    choose_look,
    style,
    svg,
)


def accuracy_by_rank(study: Study, rows: Sequence[AccuracyRow]) -> bytes:
    """SVG: test accuracy (or loss) against rank, with 95 % intervals and each mode's bare base."""
    with style():
        return svg(draw_by_rank(study, rows))


def accuracy_by_memory(study: Study, rows: Sequence[AccuracyRow]) -> bytes:
    """SVG: the same against the bytes that ship: the mode's stored base and the adapter."""
    with style():
        return svg(draw_by_memory(study, rows))


def draw_by_rank(study: Study, rows: Sequence[AccuracyRow]) -> Figure:
    """The figure behind `accuracy_by_rank`."""
    figure, axes = _canvas(rows)
    drawn = curves(study, rows)
    look = choose_look(drawn, rows)
    for curve in drawn:
        _draw_curve(axes, curve, [p.rank * 2 ** look.shifts[curve.key] for p in curve.points], look)
        _mark_unscored(axes, curve, look)
    for row, score in _scored_bases(rows):
        axes.axhline(score, color=look.colors[row.quant or ""], linestyle=BASE_LINE, linewidth=1)
    axes.plot([], [], color=NEUTRAL, linestyle=BASE_LINE, linewidth=1, label="bare base")
    if any(curve.unscored_ranks for curve in drawn):
        axes.plot([], [], "x", color=NEUTRAL, label="no score")
    ranks = sorted({row.rank for row in rows if row.rank is not None}) or [1]
    axes.set_xscale("log", base=2)
    axes.set_xlim(ranks[0] / 2**0.5, ranks[-1] * 2**0.5)
    axes.xaxis.set_major_locator(FixedLocator(ranks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:.0f}"))
    axes.set_xlabel("LoRA rank")
    figure.legend(loc="outside right upper")
    return figure


def draw_by_memory(study: Study, rows: Sequence[AccuracyRow]) -> Figure:
    """The figure behind `accuracy_by_memory`."""
    figure, axes = _canvas(rows)
    drawn = curves(study, rows)
    look = choose_look(drawn, rows)
    stored = {footprint.quant: footprint.total_bytes for footprint in study.footprints}
    known = [p.bytes for c in drawn for p in c.points if p.bytes is not None]
    scale, unit = units.byte_unit(max([*known, *stored.values(), 1]))
    named: set[str] = set()
    for curve in drawn:
        sized = tuple(p for p in curve.points if p.bytes is not None)
        _draw_curve(
            axes, replace(curve, points=sized), [(p.bytes or 0) / scale for p in sized], look
        )
        if sized and curve.key.quant not in named:
            _name_rank(axes, sized[-1], scale, look.colors[curve.key.quant])
            named.add(curve.key.quant)
    for row, score in _scored_bases(rows):
        if row.quant in stored:
            _hollow(axes, stored[row.quant] / scale, score, look, row.quant)
    axes.plot([], [], "o", color=NEUTRAL, mfc="white", markersize=6, label="bare base")
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"Stored base and adapter, {unit}")
    figure.legend(loc="outside right upper")
    return figure


def _canvas(rows: Sequence[AccuracyRow]) -> tuple[Figure, Axes]:
    figure = blank_figure()
    axes = figure.add_subplot()
    by_accuracy = scored_by_accuracy(rows)
    axes.set_ylabel("Test accuracy, %" if by_accuracy else "Test loss, nats a completion token")
    return figure, axes


def _scored_bases(rows: Sequence[AccuracyRow]) -> list[tuple[AccuracyRow, float]]:
    by_accuracy = scored_by_accuracy(rows)
    bases = [(row, value(row, by_accuracy)) for row in rows if row.is_base]
    return [(row, score) for row, score in bases if score is not None]


def _draw_curve(axes: Axes, curve: Curve, x: Sequence[float], look: Look) -> None:
    """The line over means, a bar for each interval, a dot for each of several seeds."""
    if not curve.points:
        return
    color = look.colors[curve.key.quant]
    axes.plot(
        x, [p.mean for p in curve.points], look.markers[curve.key.quant], color=color,
        linestyle=look.lines[curve.key], linewidth=1.4, markersize=5,
        label=look.labels[curve.key], zorder=3,
    )  # fmt: skip
    for position, point in zip(x, curve.points, strict=True):
        if point.low is not None and point.high is not None:
            axes.plot([position] * 2, [point.low, point.high], color=color, linewidth=1.2, zorder=2)
        if len(point.seeds) > 1:
            axes.plot([position] * len(point.seeds), point.seeds, "_", color=color, markersize=7)


def _mark_unscored(axes: Axes, curve: Curve, look: Look) -> None:
    """A cross on the axis at every rank that was tried and has no score."""
    for rank in curve.unscored_ranks:
        axes.plot(
            rank * 2 ** look.shifts[curve.key], 0.02, "x", color=look.colors[curve.key.quant],
            markersize=7, transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _hollow(axes: Axes, x: float, y: float, look: Look, quant: str) -> None:
    axes.plot(x, y, look.markers[quant], mfc="white", color=look.colors[quant], markersize=6)


def _name_rank(axes: Axes, point: Point, scale: float, color: str) -> None:
    """The highest rank in words; lower ones follow to the left, in order."""
    axes.annotate(
        f"r {point.rank}", ((point.bytes or 0) / scale, point.mean), color=color, fontsize=8,
        xytext=(7, -3), textcoords="offset points", zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip
