"""A figure whose marks say what they stand for, so that a page can answer at a point of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from lorascope.comparing.results import CellKey
from lorascope.reporting.figures.picture import Box, Entry, Panel, Picture, PlacedMark, Scale

POINTS_AN_INCH = 72
"""matplotlib's SVG is measured in points, so a figure of so many dots has equal coordinates."""
SWATCH = (24.0, 14.0)
"""Width and height in points around what a legend shows beside its words."""


@dataclass(frozen=True)
class Mark:
    """A point of a figure that stands for something."""

    axes: Axes
    place: tuple[float, float]
    """As drawn, in the numbers of the axes."""
    words: tuple[str, ...]
    """Its name, then what is to be read off, as the tables write it."""
    series: str
    """Label of the legend's entry that it belongs to; empty where it belongs to none."""
    cell: CellKey | None
    """The configuration, by which rows of tables are found."""
    curve: str = ""
    """Name of the line that ends here, where a page answers at each of its points; else empty."""


class Chart(Figure):
    """A figure without a window; `mark` and `belongs` tell what a page needs to know of it."""

    def __init__(self, width_inches: float, height_inches: float) -> None:
        """An empty one."""
        size = (width_inches, height_inches)
        super().__init__(figsize=size, dpi=POINTS_AN_INCH, layout="constrained")
        FigureCanvasAgg(self)
        self.marks: list[Mark] = []
        self.series: dict[str, int] = {}
        """Label of a legend's entry that something belongs to -> its number."""
        self.along = ""
        """What is said at a point of a curve, with {x} and {y} in place of its numbers."""
        self._named = 0

    def mark(
        self,
        axes: Axes,
        place: tuple[float, float],
        *words: str,
        series: str = "",
        cell: CellKey | None = None,
        curve: Artist | None = None,
    ) -> None:
        """Say what stands at `place`; with `curve`, at the end of that line, which `belongs`."""
        name = str(curve.get_gid()) if curve is not None else ""
        self.marks.append(Mark(axes, place, words, series, cell, name))

    def belongs(self, artists: Sequence[Artist], series: str = "") -> None:
        """These are drawn from data: they move when a page zooms, and they go when the legend's
        entry `series` is switched off."""
        number = str(self.series.setdefault(series, len(self.series))) if series else ""
        for artist in artists:
            self._named += 1
            artist.set_gid(f"series{number}.{self._named}")


def svg(figure: Figure) -> bytes:
    """The figure as SVG without date or version; text stays text."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def picture(chart: Chart) -> Picture:
    """The figure as SVG, and its marks where they were drawn."""
    legends: list[Legend] = chart.legends
    for legend in legends:
        for place, handle in enumerate(legend.legend_handles):
            assert handle is not None
            handle.set_gid(f"swatch.{place}")
    for axes in chart.axes:
        for inner in (*axes.lines, *axes.collections):
            # Inside its axes it moves nothing; to ask each for its place takes as long as to draw.
            inner.set_in_layout(False)
    drawn = svg(chart)
    whole = (0.0, 0.0, chart.bbox.width, chart.bbox.height)
    panels: list[Axes] = [axes for axes in chart.axes if axes.axison]
    return Picture(
        drawn,
        _without_legend(whole, [_box(legend.get_window_extent(), chart) for legend in legends]),
        tuple(entry for legend in legends for entry in _entries(legend, chart)),
        tuple(_panel(axes, panels, chart) for axes in panels),
        tuple(_placed(mark, panels, chart) for mark in chart.marks),
        chart.along,
    )


def _box(extent: Any, chart: Chart) -> Box:
    """Of matplotlib's box, whose y points up."""
    return (extent.x0, chart.bbox.height - extent.y1, extent.width, extent.height)


def _without_legend(whole: Box, legends: Sequence[Box]) -> Box:
    """A legend stands on the right of all that is drawn, or above it."""
    _, _, width, height = whole
    for left, top, wide, high in legends:
        if left > width / 2 and left + wide > 0.9 * width:
            return (0.0, 0.0, left, height)
        return (0.0, top + high, width, height - top - high)
    return whole


def _entries(legend: Legend, chart: Chart) -> list[Entry]:
    found = []
    wide, high = SWATCH
    for handle, words in zip(legend.legend_handles, legend.get_texts(), strict=True):
        assert handle is not None
        left, top, width, height = _box(handle.get_window_extent(), chart)
        middle = left + width / 2, top + height / 2
        box = (middle[0] - wide / 2, middle[1] - high / 2, wide, high)
        found.append(Entry(words.get_text(), chart.series.get(words.get_text()), box))
    return found


def _panel(axes: Axes, panels: Sequence[Axes], chart: Chart) -> Panel:
    first_x, first_y = (
        next(i for i, other in enumerate(panels) if other is axes or joined.joined(axes, other))
        for joined in (axes.get_shared_x_axes(), axes.get_shared_y_axes())
    )
    fixed = type(axes.xaxis.get_major_locator()).__name__ == "FixedLocator"
    kind = "fixed" if fixed else axes.get_xscale()
    return Panel(
        _box(axes.bbox, chart),
        Scale(kind, *axes.get_xlim(), joined=first_x),
        Scale(axes.get_yscale(), *axes.get_ylim(), joined=first_y),
    )


def _placed(mark: Mark, panels: Sequence[Axes], chart: Chart) -> PlacedMark:
    x, y = mark.axes.transData.transform(mark.place)
    series = chart.series.get(mark.series)
    place = panels.index(mark.axes)
    y = chart.bbox.height - y
    return PlacedMark(place, float(x), float(y), series, mark.cell, mark.words, mark.curve)
