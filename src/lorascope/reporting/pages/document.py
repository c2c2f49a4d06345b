"""What a page consists of, whatever it is written as: Markdown and HTML render the same blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lorascope.comparing.results import CellKey
from lorascope.reporting.figures.picture import Picture
from lorascope.reporting.tables.table import Table


@dataclass(frozen=True)
class Code:
    """A name as a machine spells it."""

    text: str


@dataclass(frozen=True)
class Strong:
    """What must not be missed."""

    text: str


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, or to a section of it (#anchor)."""

    text: str
    href: str


Inline = str | Code | Strong | Link
Line = tuple[Inline, ...]


@dataclass(frozen=True)
class Paragraph:
    """One or more sentences."""

    line: Line


@dataclass(frozen=True)
class Bullets:
    """A short list."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Facts:
    """Terms, each with what is to be said of it."""

    facts: tuple[tuple[str, Line], ...]


@dataclass(frozen=True)
class TableBlock:
    """A table under its caption."""

    key: str
    """Unique on the page."""
    caption: str
    table: Table[Any]
    leading_first: tuple[int, ...] = ()
    """Places of its rows, those first that matter most; empty where they are in that order."""
    file: str = ""
    """Of its numbers, beside the page; empty where it has none."""
    fold: str = ""
    """Words under which HTML folds it; empty where it stands open."""


@dataclass(frozen=True)
class FigureBlock:
    """A figure, with words for those who do not see it."""

    key: str
    file: str
    """Beside the page."""
    picture: Picture
    title: str
    description: str
    caption: str


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer, and whether the answer that it is held against lacks it."""

    text: str
    only_here: bool


@dataclass(frozen=True)
class Said:
    """An answer of one bare base or trial."""

    who: str
    pieces: tuple[Piece, ...]
    note: str
    """What the words do not show: that it was cut."""
    compared: bool
    """Whether it is held against the first answer of its row."""


@dataclass(frozen=True)
class Asked:
    """One prompt, and what was answered."""

    summary: str
    """One line of it."""
    prompt: str
    reference: str
    rows: tuple[tuple[Said, ...], ...]
    """A row a mode: the bare base, then its trials."""


@dataclass(frozen=True)
class AnswersBlock:
    """Answers to the same prompts, side by side, folded until they are asked for."""

    asked: tuple[Asked, ...]


@dataclass(frozen=True)
class ByMedium:
    """Blocks of which each kind of page takes its own."""

    markdown: str
    """Empty where HTML alone has something."""
    html: tuple[Block, ...]


Block = Paragraph | Bullets | Facts | TableBlock | FigureBlock | AnswersBlock | ByMedium


@dataclass(frozen=True)
class Fact:
    """One number of the answer."""

    label: str
    value: str
    note: str
    in_short: bool = False
    """Whether the answer in short says it too: the terminal then says it once."""


@dataclass(frozen=True)
class Answer:
    """What a reader takes away who reads nothing else."""

    headline: str
    state: str
    """One word or two: settled, undecided, no score."""
    is_settled: bool
    facts: tuple[Fact, ...]
    notes: tuple[Line, ...]
    """Why: the rule, and what it found."""
    in_short: tuple[tuple[str, Line], ...] = ()
    """Terms, each with a sentence in a person's words."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    folded: bool = False
    """Whether HTML shows it when it is asked for."""


@dataclass(frozen=True)
class Document:
    """A whole page."""

    title: str
    question: Line
    declared: Facts
    """What was asked for: the axes of the study."""
    answer: Answer
    sections: tuple[Section, ...]
    cells: tuple[CellKey, ...] = ()
    """The configurations, by whose places marks of figures and rows of tables find each other."""


def text(words: str) -> Paragraph:
    """A paragraph of plain words."""
    return Paragraph((words,))
