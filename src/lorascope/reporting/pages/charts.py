"""A figure inside the page: its drawing, its legend as a list, and what its points say, for the
script that answers to mouse and keyboard. Without the script it is a picture with words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape

from markupsafe import Markup

from lorascope.comparing.results import CellKey
from lorascope.reporting.figures.picture import Box, PlacedMark, Scale
from lorascope.reporting.figures.style import AXIS, GRID, INK, NEUTRAL, PALETTE, PAPER
from lorascope.reporting.pages.document import FigureBlock

VARIABLES = {
    INK: "ink",
    GRID: "rule",
    AXIS: "axis",
    NEUTRAL: "quiet",
    PAPER: "paper",
    **{color.lower(): f"mode{place}" for place, color in enumerate(PALETTE)},
}
"""Colour in a figure -> the page's CSS variable, so that figures follow light and dark."""
WHOLE_REM, NARROW_REM, WHOLE_POINTS = 54.0, 34.0, 576.0
"""Widths between which a figure of so many points is shown; narrower ones in proportion."""


def inlined(figure: FigureBlock) -> Markup:
    """The <svg> element alone, as an image with a text alternative; ids begin with its key. Its
    legend is kept out of sight: the page has it as a list, whose swatches are taken from there."""
    key, text = figure.key, figure.picture.svg.decode()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    curves = {mark.curve for mark in figure.picture.marks}
    text = re.sub(
        r'<g id="(series(\d*)\.\d+)"',
        lambda g: f'<g id="{g[1]}" data-series="{g[2]}"' if g[1] in curves
        else f'<g data-series="{g[2]}"',
        text,
    )  # fmt: skip
    text = re.sub(
        r'<g id="legend_1">(.*?</g>)\s*</g>\s*</g>\s*(?=<defs>|</svg>)',
        r'<defs id="legend_1">\1</defs></g>', text, flags=re.DOTALL,
    )  # fmt: skip
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{key}-", text)
    text = re.sub(r"#[0-9a-fA-F]{6}\b", _variable, text)
    text = re.sub(r"(<!--.*?-->)|(font: ([0-9.]+)px[^;\"]*)", _plain_font, text)
    text = re.sub(r">\s+<", "><", text)
    _, rest = text.split(">", 1)
    # Our own figure, whose texts matplotlib has escaped.
    return Markup(
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{_box(figure.picture.box)}" '
        f'role="img" aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{escape(figure.title)}</title>'
        f'<desc id="{key}-desc">{escape(figure.description)}</desc>{rest}'
    )


def swatch(box: Box, key: str, place: int) -> Markup:
    """What stands beside the words of a legend's entry."""
    _, _, width, height = box
    return Markup(
        f'<svg class="swatch" viewBox="{_box(box)}" width="{width:g}" height="{height:g}" '
        f'aria-hidden="true"><use xlink:href="#{key}-swatch.{place}"/></svg>'
    )


def marks_as_json(figure: FigureBlock, places: Mapping[CellKey, int]) -> Markup:
    """Panels and points, as the script reads them. `places`: configuration -> its number."""
    panels = [
        {"box": [round(x, 6) for x in panel.box], "x": _scale(panel.x), "y": _scale(panel.y)}
        for panel in figure.picture.panels
    ]
    marks = [_mark(mark, places) for mark in figure.picture.marks]
    along = {"along": figure.picture.along} if figure.picture.along else {}
    told = {"panels": panels, "marks": marks, **along}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _mark(mark: PlacedMark, places: Mapping[CellKey, int]) -> list[object]:
    cell = None if mark.cell is None else places.get(mark.cell)
    place = [round(mark.x, 2), round(mark.y, 2)]
    told: list[object] = [mark.panel, *place, mark.series, cell, list(mark.words)]
    return [*told, mark.curve] if mark.curve else told


def _scale(scale: Scale) -> list[object]:
    return [scale.kind, scale.low, scale.high, scale.joined]


def _box(box: Box) -> str:
    return " ".join(f"{number:.5g}" for number in box)


def width(box: Box) -> str:
    """As wide as its letters allow, not as the page would."""
    share = box[2] / WHOLE_POINTS
    return f"max-width: {WHOLE_REM * share:.1f}rem; min-width: {NARROW_REM * share:.1f}rem"


def _variable(match: re.Match[str]) -> str:
    """The page's variable for a colour, or the colour itself where the page has none."""
    name = VARIABLES.get(match.group().lower())
    return f"var(--{name})" if name else match.group()


def _plain_font(match: re.Match[str]) -> str:
    """The size alone: the family is the page's. Comments go."""
    return "" if match.group(1) else f"font-size: {match.group(3)}px"
