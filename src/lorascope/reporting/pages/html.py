"""A document as one HTML file that asks nothing of anybody: style, script and figures are in it."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lorascope.reporting.figures.style import AXIS, GRID, INK, NEUTRAL, PALETTE, PAPER
from lorascope.reporting.pages.document import Block, ByMedium, Document, FigureBlock, Section
from lorascope.reporting.tables.table import PageCell

FILTERED_FROM = 8
"""Rows from which on a table gets a field to filter by."""
FOLDED_FROM, FIRST_ROWS = 31, 20
"""Rows from which on a table shows so many first, and the others when they are asked for."""
VARIABLES = {
    INK: "ink",
    GRID: "rule",
    AXIS: "axis",
    NEUTRAL: "quiet",
    PAPER: "paper",
    **{color.lower(): f"mode{place}" for place, color in enumerate(PALETTE)},
}
"""Colour in a figure -> the page's CSS variable, so that figures follow light and dark."""


def html_page(document: Document) -> str:
    """The whole page; equal documents give equal bytes."""
    environment = Environment(
        loader=FunctionLoader(_packaged),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["kind"] = lambda part, kind: type(part).__name__ == kind
    environment.filters["inlined"] = _inlined
    environment.filters["blocks"] = _blocks
    environment.filters["rest"] = _rest_as_json
    environment.filters["at"] = lambda rows, places: [rows[place] for place in places]
    return environment.get_template("report.html.j2").render(
        page=document,
        style=Markup(_packaged("report.css")),
        script=Markup(_packaged("report.js")),
        filtered_from=FILTERED_FROM,
        folded_from=FOLDED_FROM,
        first_rows=FIRST_ROWS,
    )


def _packaged(name: str) -> str:
    return (files("lorascope.reporting.pages") / "templates" / name).read_text(encoding="utf-8")


def _blocks(section: Section) -> list[Block]:
    found: list[Block] = []
    for block in section.blocks:
        found += block.html if isinstance(block, ByMedium) else (block,)
    return found


def _rest_as_json(rows: list[list[PageCell]], first: list[int]) -> Markup:
    """Rows but the `first` ones, as a browser reads them when they are asked for: each cell is its
    text, or a list of text, what it sorts by and what it links to."""
    shown = set(first)
    cells = [
        [
            cell.text if cell.order is cell.href is None else [cell.text, cell.order, cell.href]
            for cell in row
        ]
        for place, row in enumerate(rows)
        if place not in shown
    ]
    text = json.dumps(cells, ensure_ascii=False, separators=(",", ":"))
    # Nothing in it may end the element, or begin a comment.
    return Markup(text.replace("<", "\\u003c"))


def _inlined(figure: FigureBlock) -> Markup:
    """The <svg> element alone, as an image with a text alternative; ids begin with its key."""
    key, text = figure.key, figure.svg.decode()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{key}-", text)
    text = re.sub(r"#[0-9a-fA-F]{6}\b", _variable, text)
    text = re.sub(r"(<!--.*?-->)|(font: ([0-9.]+)px[^;\"]*)", _plain_font, text)
    text = re.sub(r">\s+<", "><", text)
    opening, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None, f"{key}: the SVG has no viewBox"
    # Our own figure, whose texts matplotlib has escaped.
    return Markup(
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box.group()} role="img" '
        f'aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{escape(figure.title)}</title>'
        f'<desc id="{key}-desc">{escape(figure.description)}</desc>{rest}'
    )


def _variable(match: re.Match[str]) -> str:
    """The page's variable for a colour, or the colour itself where the page has none."""
    name = VARIABLES.get(match.group().lower())
    return f"var(--{name})" if name else match.group()


def _plain_font(match: re.Match[str]) -> str:
    """The size alone: the family is the page's. Comments go."""
    return "" if match.group(1) else f"font-size: {match.group(3)}px"
