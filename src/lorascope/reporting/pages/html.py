"""A document as one HTML file that asks nothing of anybody: style, script and figures are in it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lorascope.comparing.results import CellKey
from lorascope.reporting.pages.charts import inlined, marks_as_json, swatch, width
from lorascope.reporting.pages.document import Block, ByMedium, Document, Section
from lorascope.reporting.pages.page_rows import FILTERED_FROM, FIRST_ROWS, page_rows

SCRIPTS = ("sections.js", "tables.js", "zoom.js", "steps.js", "charts.js", "links.js")
"""Each uses what stands in those before it."""


def html_page(document: Document) -> str:
    """The whole page; equal documents give equal bytes."""
    return rendered("report.html.j2", document.cells, SCRIPTS, page=document)


def rendered(
    template: str, cells: Sequence[CellKey], scripts: Sequence[str], **values: object
) -> str:
    """A page of a packaged template, with the style and `scripts` in it. `cells`: configurations by
    their numbers, by which marks of figures and rows of tables find each other."""
    environment = Environment(
        loader=FunctionLoader(_packaged),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["kind"] = lambda part, kind: type(part).__name__ == kind
    places = {cell: place for place, cell in enumerate(cells)}
    environment.filters["inlined"] = inlined
    environment.filters["swatch"] = swatch
    environment.filters["width"] = width
    environment.filters["marks"] = lambda figure: marks_as_json(figure, places)
    environment.filters["blocks"] = _blocks
    environment.filters["rows"] = lambda block: page_rows(block, places)
    return environment.get_template(template).render(
        style=Markup(_packaged("report.css")),
        script=Markup("".join(map(_packaged, scripts))),
        filtered_from=FILTERED_FROM,
        first_rows=FIRST_ROWS,
        **values,
    )


def _packaged(name: str) -> str:
    return (files("lorascope.reporting.pages") / "templates" / name).read_text(encoding="utf-8")


def _blocks(section: Section) -> list[Block]:
    found: list[Block] = []
    for block in section.blocks:
        found += block.html if isinstance(block, ByMedium) else (block,)
    return found
