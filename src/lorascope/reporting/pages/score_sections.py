"""The sections about scores: by rank, by memory, pair by pair, cell by cell, power, losses."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.comparing.results import CellKey, Measure, Pairing, Power, Reach
from lorascope.comparing.ruling import Findings
from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.by_memory import accuracy_by_memory
from lorascope.reporting.figures.by_rank import accuracy_by_rank
from lorascope.reporting.figures.curves import curves, size_axis
from lorascope.reporting.figures.losses import loss_by_step
from lorascope.reporting.figures.style import curve_labels
from lorascope.reporting.measure_text import MeasureText
from lorascope.reporting.pages.document import (
    Block,
    Bullets,
    Facts,
    FigureBlock,
    Link,
    Paragraph,
    Section,
    TableBlock,
    text,
)
from lorascope.reporting.tables.cells import cell_table
from lorascope.reporting.tables.comparisons import comparison_table, of_pairing
from lorascope.reporting.tables.decision import candidate_table
from lorascope.reporting.tables.frontier import FrontierRow, frontier_rows, frontier_summary

BY_RANK = "accuracy_by_rank.svg"
BY_MEMORY = "accuracy_by_memory.svg"
BY_STEP = "loss_by_step.svg"
SERVING = "serving_bytes"


def rank_section(findings: Findings) -> Section:
    """The figure of scores against rank, and the candidates under the rule."""
    texts = MeasureText(findings.measure)
    values, drawn = [], curves(findings)
    labels, axis = curve_labels(drawn), size_axis(score.cell for score in findings.cells)
    for curve in drawn:
        shown = [f"{p.size} {_plotted(p.mean, findings.measure)}" for p in curve.points]
        values.append(f"{labels[curve.key]}: {', '.join(shown) or 'no score'}")
    figure = FigureBlock(
        "by-rank",
        BY_RANK,
        accuracy_by_rank(findings),
        f"Test {texts.name} against {axis.label}, by mode",
        f"{texts.unit} with 95 % intervals. {'; '.join(values)}.",
        "Bars are 95 % intervals over test items and seeds. Where there are several seeds, lines "
        f"are means and small ticks the seeds. Curves stand slightly apart at one {axis.noun} so "
        "that bars can be seen.",
    )
    blocks: list[Block] = [figure]
    if findings.decision.candidates:
        caption = "Candidates on validation items, cheapest first"
        blocks.append(TableBlock("candidates", caption, candidate_table(findings.decision)))
    return Section(
        "by-rank-section", f"{texts.name.capitalize()} against {axis.noun}", tuple(blocks)
    )


def memory_frontier_section(findings: Findings) -> Section:
    """The figure of scores against memory, and a table for each cost."""
    texts, names = MeasureText(findings.measure), CellNames.of(findings)
    rows = frontier_rows(findings.frontiers)
    figure = FigureBlock(
        "by-memory",
        BY_MEMORY,
        accuracy_by_memory(findings),
        f"Test {texts.name} against memory, with the Pareto frontier",
        f"On the frontier for serving memory: {_on_frontier(rows, names)}.",
        "The line is the frontier: nothing cheaper scores as well. The fuller a mark, the larger "
        "the share of resampled item sets that put it on the frontier.",
    )
    caption = "Costs, cheapest first, and the share of resampled item sets on each frontier"
    table = TableBlock("frontier", caption, frontier_summary(rows, findings.measure))
    blocks: tuple[Block, ...] = (figure, table) if rows else (figure,)
    return Section("by-memory-section", f"{texts.name.capitalize()} against memory", blocks)


def pairs_section(findings: Findings) -> Section:
    """Every comparison, by what it compares."""
    names, texts = CellNames.of(findings), MeasureText(findings.measure)
    table = comparison_table(findings.comparisons, findings.measure, names)
    blocks: list[Block] = [
        text(
            f"Differences of test {texts.name}, first minus second, on the same items and seeds. "
            f"p-values are corrected (Holm) for all {len(findings.comparisons)} comparisons of "
            f"the study; 'no worse' means worse by less than "
            f"{texts.width(findings.decision.margin)} {texts.step}."
        )
    ]
    for pairing in Pairing:
        chosen = of_pairing(table, pairing)
        if chosen.rows:
            caption = PAIRING_CAPTIONS[pairing]
            blocks.append(TableBlock(f"pairs-{pairing.value}", caption, chosen))
    if not findings.comparisons:
        blocks.append(text("Nothing can be compared: fewer than two configurations have scores."))
    return Section("pairs", "Pairwise verdicts", tuple(blocks))


PAIRING_CAPTIONS = {
    Pairing.mode: "A mode against the reference mode, all else equal",
    Pairing.rank: "An adapter against the one of its mode that validates best",
    Pairing.base: "An adapter against its mode's bare base",
    Pairing.decision: "The recommended configuration against the reference",
}


def cells_section(findings: Findings) -> Section:
    """Every configuration, with intervals over items and seeds."""
    estimates = [e for score in findings.cells if (e := score.test(findings.measure))]
    first = estimates[0] if estimates else None
    clusters = (
        ""
        if first is None or first.clusters is None
        else f" in {units.count(first.clusters)} groups"
    )
    over = f" over {units.count(first.items)} test items{clusters}" if first else ""
    return Section(
        "configurations",
        "Configurations",
        (
            text(f"Intervals{over} and the seeds that have a score."),
            TableBlock("cells", "Scores and costs", cell_table(findings)),
        ),
    )  # fmt: skip


def power_section(findings: Findings) -> Section:
    """What the item counts could show, and what they did."""
    power = findings.power
    blocks: tuple[Block, ...]
    if power is None:
        blocks = (text("Unknown: nothing has a score."),)
    else:
        blocks = (Facts(tuple((term, (words,)) for term, words in _power_facts(power))),)
    return Section("power", "What this study can show", blocks)


def _power_facts(power: Power) -> list[tuple[str, str]]:
    texts = MeasureText(power.measure)
    clusters = "" if power.clusters is None else f" in {units.count(power.clusters)} groups"
    facts = [("Test items", f"{units.count(power.items)}{clusters}")]
    facts += [
        (f"Before, if {share} of answers differ", _reach(reach, texts))
        for share, reach in power.before.items()
    ]
    if power.unpaired is not None:
        facts.append(("Without pairing: two runs on separate items", _reach(power.unpaired, texts)))
    if power.after is not None:
        facts.append((
            "After, as measured between modes",
            f"a true difference of {texts.width(power.after)} {texts.step} is found eight times "
            "of ten (median)",
        ))  # fmt: skip
    if power.after_corrected is not None:
        facts.append((
            f"The same, corrected for {power.comparisons} comparisons",
            f"{texts.width(power.after_corrected)} {texts.step}",
        ))  # fmt: skip
    return facts


def _reach(reach: Reach, texts: MeasureText) -> str:
    return (
        f"{texts.width(reach.significant)} {texts.step} are significant at 5 %; a true difference "
        f"of {texts.width(reach.found)} is found eight times of ten"
    )


def loss_section(study: Study, findings: Findings) -> Section:
    """Training losses."""
    trials = [t for t in study.trials if t.result and t.result.losses]
    if not trials:
        return Section("losses", "Loss curves", (text("No trial has logged a loss."),))
    ends = [t.result.losses[-1].loss_nats for t in trials if t.result]
    figure = FigureBlock(
        "by-step",
        BY_STEP,
        loss_by_step(study, findings),
        "Training loss by step, a panel a mode",
        f"{len(trials)} trials; last logged losses from {min(ends):.4g} to {max(ends):.4g} nats.",
        "One line a trial, stronger the higher its rank. Each point is the mean since the point "
        "before.",
    )
    return Section(
        "losses", "Loss curves",
        (figure, Paragraph(("All points: ", Link("losses.csv", "losses.csv"), "."))),
    )  # fmt: skip


def threats_section(findings: Findings) -> Section:
    """What speaks against the conclusions."""
    lines = tuple((sentence,) for sentence in findings.threats)
    block = Bullets(lines) if lines else text("The records show none of those that are looked for.")
    return Section("threats", "Threats to validity", (block,))


def _plotted(value: float, measure: Measure) -> str:
    return f"{value:.1f}" if measure is Measure.accuracy else f"{value:.4f}"


def _on_frontier(rows: Sequence[FrontierRow], names: CellNames) -> str:
    found: list[CellKey] = [
        row.cell for row in rows if row.on_frontier and row.cost_name == SERVING
    ]
    return units.listed(f"{names.name(cell)}" for cell in found)
