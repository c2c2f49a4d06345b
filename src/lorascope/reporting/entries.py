"""An entry of the catalogue: a table or figure with its name, its section, its files, and how it is
made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lorascope.comparing.ruling import Findings
from lorascope.records import Study
from lorascope.reporting.figures.chart import Chart, picture
from lorascope.reporting.figures.picture import Picture
from lorascope.reporting.figures.style import style
from lorascope.reporting.leading_rows import leading_first
from lorascope.reporting.pages.document import Block, FigureBlock, TableBlock
from lorascope.reporting.tables.table import Table


@dataclass(frozen=True)
class TableEntry:
    """A table, in files and on the page."""

    name: str
    """Unique on the page."""
    section: str
    """Anchor of the page's section."""
    make: Callable[[Study, Findings], Table[Any]]
    caption: str = ""
    csv: str = ""
    """File of its numbers, where it has one."""
    markdown: str = ""
    """File of its text, where it has one; several tables may share it."""
    heading: str = ""
    """In that file, where it is not the caption."""
    above: Callable[[Study], str] | None = None
    """Sentences above the table in that file."""
    page: Callable[[Study, Findings, TableBlock], Iterable[Block]] | None = None
    """What the page shows, where that is not the table as it is, or nothing if it has no rows."""

    def blocks(self, study: Study, findings: Findings, made: Table[Any]) -> Iterable[Block]:
        """What the page shows of it."""
        first = leading_first(made.rows, findings)
        block = TableBlock(self.name, self.caption, made, first, self.csv)
        if self.page is not None:
            return self.page(study, findings, block)
        return (block,) if made.rows else ()

    def text(self, study: Study, made: Table[Any]) -> str:
        """Its part of the Markdown file."""
        above = f"{self.above(study)}\n\n" if self.above else ""
        return f"# {self.heading or self.caption}\n\n{above}{made.markdown()}"


@dataclass(frozen=True)
class FigureEntry:
    """A figure, in a file and on the page."""

    name: str
    """Unique on the page."""
    section: str
    """Anchor of the page's section."""
    draw: Callable[[Study, Findings], Chart]
    file: str
    words: Callable[[Study, Findings], tuple[str, str, str] | None]
    """Title, description for those who do not see it, caption; None where nothing is drawn: the
    file is written all the same, as its reader expects it."""

    def make(self, study: Study, findings: Findings) -> Picture:
        """The figure as SVG, and its marks."""
        with style():
            return picture(self.draw(study, findings))

    def blocks(self, study: Study, findings: Findings, made: Picture) -> Iterable[Block]:
        """What the page shows of it."""
        words = self.words(study, findings)
        return () if words is None else (FigureBlock(self.name, self.file, made, *words),)
