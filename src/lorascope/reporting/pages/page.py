"""The page for the review: the question, the answer, what it rests on, what speaks against it.

Every sentence is made from the records' numbers; none is a verdict that they do not carry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lorascope.adapters.kinds import method_of
from lorascope.comparing.cells import NOT_NEEDED, variants
from lorascope.comparing.results import cell_of
from lorascope.comparing.ruling import Findings
from lorascope.records import Dial, DialValue, Status, Study, TrialKey, dial_text
from lorascope.reporting import units
from lorascope.reporting.figures.curves import size_axis
from lorascope.reporting.pages.answers_section import answers_blocks
from lorascope.reporting.pages.document import (
    Block,
    Bullets,
    Document,
    Facts,
    Link,
    Paragraph,
    Section,
    text,
)
from lorascope.reporting.pages.provenance_section import provenance_blocks
from lorascope.reporting.pages.reading import how_to_read
from lorascope.reporting.pages.recommendation import answer
from lorascope.reporting.pages.record_sections import merge_blocks, served_blocks
from lorascope.reporting.pages.score_sections import (
    cells_words,
    pairs_words,
    power_blocks,
    threats_blocks,
    ways_words,
)
from lorascope.reporting.tables.accuracy import MISSING, AccuracyRow, accuracy_rows, modes
from lorascope.reporting.tables.methods import has_methods


def document(study: Study, findings: Findings, shown: Mapping[str, Sequence[Block]]) -> Document:
    """The whole page, whatever it is written as. `shown`: a section's anchor -> its tables and
    figures."""
    rows = accuracy_rows(study)
    others = [*study.missing.values(), *study.unneeded.values()]
    keys = [trial.key for trial in study.trials] + others
    labels = dict.fromkeys(method_of(key.method).label for key in keys)
    return Document(
        title=f"{units.listed(labels)} study: {study.base.model} on {study.data.name}",
        question=(
            f"Which {_asked(keys)} and quantization mode to ship for {study.base.model} "
            f"({units.count(study.base.parameters)} parameters) on {study.data.name}?",
        ),
        declared=_declared(study, keys, rows),
        answer=answer(findings),
        sections=_sections(study, findings, shown, rows),
        cells=tuple(score.cell for score in findings.cells),
    )


def _sections(
    study: Study,
    findings: Findings,
    shown: Mapping[str, Sequence[Block]],
    rows: Sequence[AccuracyRow],
) -> tuple[Section, ...]:
    """In the order of the page: words, then what the catalogue has for the section."""

    def section(
        anchor: str, title: str, words: Iterable[Block] = (), after: Iterable[Block] = ()
    ) -> Section:
        blocks = (*words, *shown.get(anchor, ()), *after)
        return Section(anchor, title, blocks, anchor not in OPEN)

    score = findings.measure.words.capitalize()
    size = size_axis(cell.cell for cell in findings.cells)
    by_size = "Candidates" if size.is_mixed else f"{score} against {size.noun}"
    several_methods = has_methods(cell.cell for cell in findings.cells)
    unscored = any(not row.scored and row.status != NOT_NEEDED for row in rows)
    none_lost = () if unscored else (text("None: every trial that was trained has a score."),)
    all_points = Paragraph(("All points: ", Link("losses.csv", "losses.csv"), "."))
    return (
        *([section("by-method-section", f"{score} by method")] if several_methods else []),
        section("by-rank-section", by_size),
        *([section("ways-section", WAYS, ways_words(findings))] if findings.ways else []),
        section("by-memory-section", f"{score} against memory"),
        section("parameters", "Trainable parameters"),
        section("memory", "Memory and speed"),
        section("pairs", "Pairwise verdicts", pairs_words(findings)),
        section("configurations", "Configurations", cells_words(findings)),
        *([section("groups", f"{score} by group", (text(GROUPS),))] if findings.groups else []),
        *([section("says", SAYS, answers_blocks(study, findings))] if study.examples else []),
        section("power", "What this study can show", power_blocks(findings)),
        section("losses", "Loss curves", after=(
            all_points if shown["losses"] else text("No trial has logged a loss."),
        )),
        section("failed", "Failed, refused, missing or not scored", none_lost),
        section("merged", "Merged model", (
            *merge_blocks(study, findings.decision),
            *served_blocks(study.served, findings.decision),
        )),
        section("threats", "Threats to validity", threats_blocks(findings)),
        section("reading", "How to read this", (Bullets(how_to_read(study.data.scoring)),)),
        section("provenance", "Provenance", provenance_blocks(study)),
    )  # fmt: skip


OPEN = {
    "by-method-section", "by-rank-section", "ways-section", "by-memory-section", "threats",
}  # fmt: skip
"""Sections that nobody needs to ask for: scores, prices, and what speaks against them."""
SAYS = "What the model says"
GROUPS = (
    "Groups are the values of the column that data.group names. The configurations are the bare "
    "base of the reference's mode, the reference, what is recommended, and what validates best of "
    "each mode and form. p-values are corrected (Holm) for all tests of this table."
)
WAYS = "Quantized after training, or trained for it"


def _asked(keys: Sequence[TrialKey]) -> str:
    """rank, alpha; with several methods, those too."""
    methods = {key.method for key in keys}
    numbers = (dial.noun for dial, _ in _numbers(keys))
    return ", ".join(["method"] * (len(methods) != 1) + list(numbers)) or "targets"


def _numbers(keys: Sequence[TrialKey]) -> list[tuple[Dial, list[DialValue]]]:
    found: dict[Dial, list[DialValue]] = {}
    for dial, value in (shown for key in keys for shown in cell_of(key).shown()):
        if not isinstance(value, bool):
            found.setdefault(dial, []).append(value)
    return [(dial, sorted(set(values))) for dial, values in found.items()]


def _declared(study: Study, keys: Sequence[TrialKey], rows: Sequence[AccuracyRow]) -> Facts:
    # A trial counts once, whatever forms it is scored in.
    ended = Counter({row.trial: row.status for row in rows if not row.cell.base}.values())
    forms = dict.fromkeys(form for served in study.forms.values() for form in served)
    counts = [f"{ended[end]:,} {end}" for end in (*Status, MISSING, NOT_NEEDED) if ended[end]]
    settings = sorted({name for name in variants(study).values() if name})
    facts = {
        "Modes": units.listed(modes(study)),
        "Adapters": units.listed(map(_adapter, keys)),
        "Targets": units.listed(sorted({key.targets for key in keys})),
        **{f"{d.header}s": units.listed(map(dial_text, found)) for d, found in _numbers(keys)},
        **({"Settings": units.listed(settings, "; ")} if settings else {}),
        **({"Served": units.listed(forms)} if study.has_served_forms else {}),
        "Seeds": units.listed(sorted({key.seed for key in keys})),
        "Trials": units.listed(counts),
    }
    return Facts(tuple((term, (words,)) for term, words in facts.items()))


def _adapter(key: TrialKey) -> str:
    """LoRA; LoRA with rsLoRA and DoRA."""
    switches = [dial.noun for dial, value in cell_of(key).shown() if value is True]
    return " with ".join([method_of(key.method).label, *filter(None, [" and ".join(switches)])])
