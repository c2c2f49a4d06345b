"""What bare bases and leading trials answer to the same prompts, side by side."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from lorascope.comparing.cells import base_cell, variants
from lorascope.comparing.results import CellKey, cell_of
from lorascope.comparing.ruling import Findings
from lorascope.records import Example, Study
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.pages.document import (
    AnswersBlock,
    Asked,
    Block,
    ByMedium,
    Piece,
    Said,
    text,
)
from lorascope.reporting.tables.table import Column, Table

SUMMARY_CHARACTERS = 100
"""Of a folded prompt; its end is shown, where the question stands."""
SHORT_CHARACTERS = 120
"""Of a cell in Markdown."""
SHORT_PROMPTS = 3
"""That Markdown shows."""


@dataclass(frozen=True)
class Subject:
    """A bare base or a trial, with what it answered."""

    cell: CellKey
    examples: dict[str, Example]
    """By the hash of the row."""


def answers_blocks(study: Study, findings: Findings) -> Iterator[Block]:
    """All answers for the page, and a short form for Markdown; nothing where none are kept."""
    modes = subjects_by_mode(study)
    first = next((one.examples for subjects in modes.values() for one in subjects), {})
    if not first:
        return
    names = CellNames.of(findings)
    prompts = "1 test prompt" if len(first) == 1 else f"{len(first)} test prompts"
    yield text(
        f"{prompts}, answered by each mode's bare base and by its configurations that validate "
        "best, each by its first seed. The prompts are drawn by the hash of their rows, and "
        "nothing is chosen by the answers. An answer ends at the end-of-text token, or is cut."
    )
    marks = (
        "Struck through: words of the bare base that the first trial beside it does not have. "
        "Underlined: words of a trial that its bare base does not have."
    )
    shown = tuple(_asked(example, modes, names) for example in first.values())
    short = _short_table(list(first.values())[:SHORT_PROMPTS], modes, names)
    cut = len(first) > SHORT_PROMPTS
    few = f"The first {SHORT_PROMPTS} of them; report.html has all.\n\n" if cut else ""
    yield ByMedium(few + short.markdown(), (text(marks), AnswersBlock(shown)))


def subjects_by_mode(study: Study) -> dict[str, list[Subject]]:
    """Mode -> its bare base, then its trials, the best first, of those with answers."""
    variant = variants(study)
    trials = {trial.identity: trial for trial in study.trials}
    found: dict[str, list[Subject]] = {}
    evaluations = {one.identity: one for one in study.evaluations}
    for identity, examples in study.examples.items():
        evaluation = evaluations.get(identity)
        if evaluation is None or not examples:
            continue
        trial = trials.get(evaluation.trial_identity or "")
        cell = cell_of(trial.key, variant[trial.trial]) if trial else base_cell(evaluation.quant)
        subject = Subject(cell, {example.item: example for example in examples})
        found.setdefault(evaluation.quant, []).append(subject)
    return found


def _asked(example: Example, modes: dict[str, list[Subject]], names: CellNames) -> Asked:
    rows = []
    for subjects in modes.values():
        answers = [(one.cell, one.examples.get(example.item)) for one in subjects]
        rows.append(_row([(cell, said) for cell, said in answers if said], names))
    prompt = _visible(example.prompt)
    line = " ".join(prompt.split())
    cut = "…" if len(line) > SUMMARY_CHARACTERS else ""
    return Asked(
        summary=cut + line[-SUMMARY_CHARACTERS:],
        prompt=prompt,
        reference=_visible(example.reference),
        rows=tuple(row for row in rows if row),
    )


def _row(answers: Sequence[tuple[CellKey, Example]], names: CellNames) -> tuple[Said, ...]:
    """The bare base against the first trial, each trial against the bare base."""
    has_base = bool(answers) and answers[0][0].base
    row = []
    for place, (cell, example) in enumerate(answers):
        others = [answers[0][1]] if place else [one for _, one in answers[1:2]]
        other = others[0].text if has_base and others else example.text
        row.append(
            Said(
                who=names.name(cell),
                pieces=pieces(_visible(example.text), _visible(other)),
                note="" if example.ended else f"cut after {example.tokens} tokens",
                compared=not cell.base,
            )
        )
    return tuple(row)


def pieces(said: str, other: str) -> tuple[Piece, ...]:
    """`said` in stretches, by whether `other` has these words there too."""
    ours, theirs = (re.findall(r"\S+\s*|\s+", words) for words in (said, other))
    # A word is the same whatever blank follows.
    matcher = SequenceMatcher(
        None, [word.rstrip() for word in theirs], [word.rstrip() for word in ours], autojunk=False
    )
    found = [
        Piece("".join(ours[start:end]), tag != "equal")
        for tag, _, _, start, end in matcher.get_opcodes()
        if end > start
    ]
    return tuple(found)


def _visible(words: str) -> str:
    """Text without control characters and halves of surrogate pairs, which no page can hold."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs") else "\ufffd"
        for char in words
    )


@dataclass(frozen=True)
class _ShortRow:
    prompt: str
    who: str
    answer: str


def _short_table(
    examples: Sequence[Example], modes: dict[str, list[Subject]], names: CellNames
) -> Table[_ShortRow]:
    """Of each prompt the reference, and the answers of bare base and best trial, mode by mode."""
    rows = []
    for example in examples:
        prompt = _visible(example.prompt)
        rows.append(_ShortRow(prompt, "reference", _visible(example.reference)))
        for one in (one for subjects in modes.values() for one in subjects[:2]):
            if said := one.examples.get(example.item):
                rows.append(_ShortRow("", names.name(one.cell), _visible(said.text)))
    return Table(
        (
            Column("prompt", "Prompt", _end, right=False),
            Column("who", "Who", right=False),
            Column("answer", "Answer", _begin, right=False),
        ),
        rows,
    )


def _end(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= SHORT_CHARACTERS else f"…{line[-SHORT_CHARACTERS:]}"


def _begin(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= SHORT_CHARACTERS else f"{line[:SHORT_CHARACTERS]}…"
