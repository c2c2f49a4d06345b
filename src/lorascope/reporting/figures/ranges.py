"""Ranges of weights and inputs by layer, before and after they are rounded to 8 bits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from lorascope.comparing.ruling import Findings
from lorascope.records import CalibrationRecord, LayerRange, Study
from lorascope.reporting import units
from lorascope.reporting.figures.chart import Chart
from lorascope.reporting.figures.style import (
    AXIS,
    GRID,
    MARKERS,
    NEUTRAL,
    PALETTE,
    PAPER,
    blank_figure,
)

OUTLYING = 20
"""Times the median range, from which on a linear axis would hide all other layers."""
MOST_MARKED = 60
"""Layers of a figure in which each end has a mark: more would run together."""


@dataclass(frozen=True)
class Span:
    """One layer's values, from the smallest to the largest."""

    kind: str
    """q_proj."""
    before: tuple[float, float]
    after: tuple[float, float]

    @property
    def reach(self) -> float:
        """The largest magnitude on either side of rounding."""
        return max(map(abs, self.before + self.after))


def weight_spans(record: CalibrationRecord) -> list[Span]:
    """Weights as they were, and as codes give them back; in model order."""
    return [
        Span(
            _kind(own),
            (own.weight_min, own.weight_max),
            (own.stored_weight_min, own.stored_weight_max),
        )
        for own in record.layers
    ]


def input_spans(record: CalibrationRecord) -> list[Span]:
    """Inputs on the calibration rows, and those that a code stands for; in model order."""
    return [
        Span(_kind(own), (own.observed_min, own.observed_max), own.covered) for own in record.layers
    ]


def draw_ranges(record: CalibrationRecord) -> Chart:
    """Weights above, inputs below: a grey bar is the range before, a coloured line the one after.
    Colour and marker say the kind of layer."""
    figure = blank_figure(5.6)
    above, below = figure.subplots(2, 1, sharex=True)
    _draw(above, weight_spans(record))
    _draw(below, input_spans(record))
    above.set_ylabel("Weights")
    below.set_ylabel("Inputs")
    below.set_xlabel("Layer, in model order")
    kinds = _kinds(input_spans(record))
    above.plot([], [], color=AXIS, linewidth=6, alpha=0.5, label="before")
    for index, kind in enumerate(kinds):
        above.plot([], [], label=f"after, {kind}", **_look(index))
    figure.legend(loc="outside right upper")
    return figure


def first_calibrated(study: Study) -> tuple[str, CalibrationRecord] | None:
    """The first served form whose inputs were observed, in the order of the scores: its name and
    record."""
    for scores in study.evaluations:
        if scores.served is not None and scores.served.calibration is not None:
            return scores.name, scores.served.calibration
    return None


def draw_served_ranges(study: Study, _: Findings) -> Chart:
    """`draw_ranges` of the first calibrated form; a sentence where there is none."""
    found = first_calibrated(study)
    if found is not None:
        return draw_ranges(found[1])
    figure = blank_figure(1.0)
    figure.text(0.5, 0.5, "No served form was calibrated.", ha="center")
    return figure


def served_range_words(study: Study, _: Findings) -> tuple[str, str, str] | None:
    """Title, description and caption; None where no served form was calibrated."""
    found = first_calibrated(study)
    if found is None:
        return None
    title, description, caption = range_words(found[1])
    return f"{title}: {found[0]}", description, caption


def _draw(axes: Axes, spans: Sequence[Span]) -> None:
    kinds, width = _kinds(spans), max(1.0, min(6.0, 240 / len(spans)))
    reaches = [span.reach for span in spans]
    axes.axhline(0, color=NEUTRAL, linewidth=0.8, zorder=1)
    if max(reaches) > OUTLYING * statistics.median(reaches) > 0:
        linear = 10.0 ** math.floor(math.log10(statistics.median(reaches)))
        axes.set_yscale("symlog", linthresh=linear)
        # matplotlib's own powers of ten are formulas, which the page's SVG does not set.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for place, span in enumerate(spans):
        look = _look(kinds.index(span.kind))
        if len(spans) > MOST_MARKED:
            look["marker"] = ""
        axes.plot(
            [place] * 2, span.before, color=AXIS, alpha=0.5, linewidth=width, zorder=2,
            solid_capstyle="butt",
        )  # fmt: skip
        axes.plot([place] * 2, span.after, zorder=3, **look)
    axes.grid(visible=True, axis="y", color=GRID)
    axes.margins(x=0.02)


def _kinds(spans: Sequence[Span]) -> list[str]:
    return list(dict.fromkeys(span.kind for span in spans))


def _look(index: int) -> dict[str, Any]:
    color = PALETTE[index % len(PALETTE)]
    filled = PAPER if index >= len(PALETTE) else color
    marker = MARKERS[index % len(MARKERS)]
    return {"color": color, "mfc": filled, "marker": marker, "markersize": 3.5, "linewidth": 1.1}


def _kind(own: LayerRange) -> str:
    return own.name.rpartition(".")[2]


def range_words(record: CalibrationRecord) -> tuple[str, str, str]:
    """Title, description and caption."""
    layers = record.layers
    spread = {own.name: own.observed_max - own.observed_min for own in layers}
    widest, median = max(spread, key=spread.__getitem__), statistics.median(spread.values())
    worst = max(layers, key=lambda own: own.relative_rmse)
    observer = record.observer.replace("_", "-")
    share = "" if record.percentile is None else f" of {record.percentile:g} per cent"
    title = "Ranges of weights and inputs by layer, before and after 8 bits"
    description = (
        f"{len(layers)} layers. The widest inputs, of {widest}, span {spread[widest]:.3g}, and the "
        f"median layer's {median:.3g}. Rounding moves inputs most in {worst.name}: by "
        f"{units.percent(worst.relative_rmse)} % of their size (root mean square)."
    )
    caption = (
        f"Inputs as observed on {record.rows:,} rows of the train split ({record.tokens:,} "
        f"tokens), and the range that codes cover by the observer {observer}{share}: "
        f"{units.small_percent(100 * record.clipped_share)} % of all inputs lie outside and are "
        "clipped. Weights have a scale an output row, inputs one a layer."
    )
    return title, description, caption
