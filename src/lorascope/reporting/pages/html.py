"""A document as one HTML file that asks nothing of anybody: style, script and figures are in it."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lorascope.reporting.pages.document import Block, ByMedium, Document, FigureBlock, Section
from lorascope.reporting.pages.inline_svg import inline_svg

FILTERED_FROM = 8
"""Rows from which on a table gets a field to filter by."""


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
    return environment.get_template("report.html.j2").render(
        page=document,
        style=Markup(_packaged("report.css")),
        script=Markup(_packaged("report.js")),
        filtered_from=FILTERED_FROM,
    )


def _packaged(name: str) -> str:
    """A file beside the template."""
    return (files("lorascope.reporting.pages") / "templates" / name).read_text(encoding="utf-8")


def _blocks(section: Section) -> list[Block]:
    """What the section has for this medium."""
    found: list[Block] = []
    for block in section.blocks:
        found += block.html if isinstance(block, ByMedium) else (block,)
    return found


def _inlined(figure: FigureBlock) -> Markup:
    # Our own figure, whose texts matplotlib has escaped.
    return Markup(inline_svg(figure.svg, figure.key, figure.title, figure.description))
