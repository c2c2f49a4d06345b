"""Accuracy against rank, or what else sizes an adapter, as SVG that depends on numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lorascope.comparing.results import Measure
from lorascope.comparing.ruling import Findings
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.chart import Chart
from lorascope.reporting.figures.curves import (
    Curve,
    SizeAxis,
    bases,
    drawn_curves,
    ends_of,
    far_levels,
    size_axis,
)
from lorascope.reporting.figures.style import (
    BASE_LINE,
    CHANCE_LINE,
    NEUTRAL,
    PAPER,
    Look,
    bars,
    blank_figure,
    choose_look,
)


def draw_by_rank(findings: Findings) -> Chart:
    """Test accuracy (or loss) against rank, with 95 % intervals and each mode's bare base."""
    figure = blank_figure()
    axes = figure.add_subplot()
    axes.set_ylabel(score_label(findings.measure))
    drawn, names = drawn_curves(findings), CellNames.of(findings)
    look = choose_look(drawn, findings)
    for curve in drawn:
        _draw_curve(axes, curve, look, figure)
        for point in curve.points:
            place = point.place * 2 ** look.shifts[curve.key], point.mean
            figure.mark(
                axes, place, names.name(point.cell), *point.words,
                series=look.labels[curve.key], cell=point.cell,
            )  # fmt: skip
        _mark_unscored(axes, curve, look, figure)
    draw_levels(axes, findings, look.colors, figure, ends_of(drawn))
    if any(curve.unscored for curve in drawn):
        axes.plot([], [], "x", color=NEUTRAL, label="no score")
    draw_axis(axes, size_axis(score.cell for score in findings.cells))
    figure.legend(loc="outside right upper")
    return figure


def draw_levels(
    axes: Axes, findings: Findings, colors: Mapping[str, str], figure: Chart, ends: Sequence[float]
) -> None:
    """What the bare bases score, and what guessing does; but for levels so far from the intervals,
    which end at `ends`, that they would squash them."""
    levels = bases(findings)
    far = far_levels(levels, ends)
    for quant, score in levels.items():
        if quant in far:
            continue
        color = colors.get(quant, NEUTRAL)
        level = axes.axhline(score, color=color, linestyle=BASE_LINE, linewidth=1)
        figure.belongs([level], "bare base")
    words = "bare base, off the axis" if far and len(far) == len(levels) else "bare base"
    axes.plot([], [], color=NEUTRAL, linestyle=BASE_LINE, linewidth=1, label=words)
    chance = None if findings.chance is None else findings.measure.scale * findings.chance
    if chance is not None and not far_levels({"chance": chance}, ends):
        level = axes.axhline(chance, color=NEUTRAL, linestyle=CHANCE_LINE, linewidth=1)
        level.set_label("chance")
        figure.belongs([level], "chance")


def score_label(measure: Measure) -> str:
    """Of an axis of scores."""
    if measure is Measure.accuracy:
        return "Test accuracy, %"
    return "Test loss, nats a completion token"


def draw_axis(axes: Axes, sizes: SizeAxis) -> None:
    """Powers of two, a tick at every size of the study."""
    places = list(sizes.ticks) or [1.0]
    axes.set_xscale("log", base=2)
    axes.set_xlim(places[0] / 2**0.5, places[-1] * 2**0.5)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: sizes.ticks.get(place, "")))
    axes.set_xlabel(sizes.label)


def _draw_curve(axes: Axes, curve: Curve, look: Look, figure: Chart) -> None:
    """The line over means, a bar for each interval, a tick for each of several seeds."""
    if not curve.points:
        return
    x = [point.place * 2 ** look.shifts[curve.key] for point in curve.points]
    color = look.colors[curve.key.quant]
    artists = axes.plot(
        x, [p.mean for p in curve.points], look.markers[curve.key.quant], color=color,
        linestyle=look.lines[curve.key], linewidth=1.4, markersize=5,
        mfc=PAPER if look.hollow[curve.key] else color,
        label=look.labels[curve.key], zorder=3,
    )  # fmt: skip
    ends = [(point.low, point.high) for point in curve.points]
    artists += axes.plot(*bars(x, ends), color=color, linewidth=1.2, zorder=2)
    for position, point in zip(x, curve.points, strict=True):
        if len(point.seeds) > 1:
            places = [position] * len(point.seeds)
            artists += axes.plot(places, point.seeds, "_", color=color, markersize=7)
    figure.belongs(artists, look.labels[curve.key])


def _mark_unscored(axes: Axes, curve: Curve, look: Look, figure: Chart) -> None:
    """A cross on the axis at every size that was tried and has no score."""
    for place in curve.unscored:
        cross = axes.plot(
            place * 2 ** look.shifts[curve.key], 0.02, "x", color=look.colors[curve.key.quant],
            markersize=7, transform=axes.get_xaxis_transform(),
        )  # fmt: skip
        figure.belongs(cross, look.labels[curve.key])
