"""A document as Markdown, for Git hosts."""

from __future__ import annotations

from collections.abc import Iterable

from lorascope.reporting.pages.document import (
    Answer,
    Block,
    Bullets,
    ByMedium,
    Code,
    Document,
    Facts,
    FigureBlock,
    Inline,
    Line,
    Link,
    Paragraph,
    Section,
    Strong,
    TableBlock,
)
from lorascope.reporting.tables.table import escaped


def markdown_page(document: Document) -> str:
    """The whole page."""
    parts = [
        f"# {document.title}\n",
        f"{_line(document.question)}\n",
        _block(document.declared),
        _answer(document.answer),
        *(_section(section) for section in document.sections),
    ]
    return "\n".join(parts)


def _answer(answer: Answer) -> str:
    facts = [
        (fact.label, (Strong(fact.value), f" ({fact.note})" if fact.note else ""))
        for fact in answer.facts
    ]
    lines = ["## Recommendation\n", f"**{escaped(answer.headline)}**: {answer.state}.\n"]
    if answer.in_short:
        lines.append(_list(f"{term}: {_line(line)}" for term, line in answer.in_short))
    if facts:
        lines.append(_list(f"{label}: {_line(line)}" for label, line in facts))
    if answer.in_short:
        lines.append("### Why\n")
    lines.append(_list(map(_line, answer.notes)))
    return "\n".join(lines)


def _section(section: Section) -> str:
    return f"## {section.title}\n\n" + "\n".join(filter(None, map(_block, section.blocks)))


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f"{_line(block.line)}\n"
    if isinstance(block, Bullets):
        return _list(map(_line, block.lines))
    if isinstance(block, Facts):
        return _list(f"{term}: {_line(line)}" for term, line in block.facts)
    if isinstance(block, TableBlock):
        return table_text(block)
    if isinstance(block, FigureBlock):
        return f"![{block.title}]({block.file})\n\n{block.caption}\n"
    assert isinstance(block, ByMedium)
    return block.markdown


def table_text(block: TableBlock) -> str:
    """A table under its caption and the file of its numbers."""
    file = f" ([{block.file}]({block.file}))" if block.file else ""
    return f"{block.caption}{file}:\n\n{block.table.markdown()}"


def _list(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _line(line: Line) -> str:
    # A reason from a record may have several lines; a list item must not.
    return "".join(map(_inline, line)).replace("\n", " ")


def _inline(part: Inline) -> str:
    if isinstance(part, Code):
        fence = "``" if "`" in part.text else "`"
        return f"{fence}{part.text}{fence}"
    if isinstance(part, Strong):
        return f"**{escaped(part.text)}**"
    if isinstance(part, Link):
        return part.text if part.href.startswith("#") else f"[{part.text}]({part.href})"
    return escaped(part)
