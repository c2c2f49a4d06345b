"""What the page shows of scores: by rank, by memory, pair by pair, power, threats."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.comparing.results import Estimate, Measure, Pairing, Power, Reach
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost
from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.by_look import looks_by_cell
from lorascope.reporting.figures.curves import (
    curves,
    drawn_curves,
    ends_of,
    far_words,
    size_axis,
)
from lorascope.reporting.figures.style import curve_labels
from lorascope.reporting.leading_rows import leading_first
from lorascope.reporting.pages.document import (
    Block,
    Bullets,
    Facts,
    Link,
    Paragraph,
    TableBlock,
    text,
)
from lorascope.reporting.settling_text import end_of, limit_of
from lorascope.reporting.tables.frontier import frontier_summary
from lorascope.reporting.tables.ways import way_sentences


def rank_words(study: Study, findings: Findings) -> tuple[str, str, str] | None:
    """Title, description and caption of the figure of scores against rank; None where methods have
    sizes of different kinds, which share no axis."""
    measure = findings.measure
    values, drawn = [], drawn_curves(findings)
    labels, axis = curve_labels(drawn), size_axis(score.cell for score in findings.cells)
    if axis.is_mixed:
        return None
    for curve in drawn:
        shown = [f"{p.size} {measure.score(p.mean / measure.scale)}" for p in curve.points]
        values.append(f"{labels[curve.key]}: {', '.join(shown) or 'no score'}")
    every = len(curves(findings))
    best = (
        f"Of {units.count(every)} curves each mode shows at each {axis.noun} the configuration "
        "that validates best. "
    )
    return (
        f"Test {measure.words} against {axis.label}, by mode",
        f"{measure.unit} with 95 % intervals. {'; '.join(values)}.",
        f"{best if every > len(drawn) else ''}{far_words(findings, ends_of(drawn))}"
        "Bars are 95 % intervals over test items and seeds. "
        "Where there are several seeds, lines are means and small ticks the seeds. Curves stand "
        f"slightly apart at one {axis.noun} so that bars can be seen.",
    )


def look_words(study: Study, findings: Findings) -> tuple[str, str, str] | None:
    """Title, description and caption of the figure of looks; None where there are none."""
    looks, measure = looks_by_cell(findings.decision.settling), findings.measure
    if not looks:
        return None
    names, last = CellNames.of(findings), []
    for cell, taken in looks.items():
        look = taken[-1]
        limit = measure.difference(limit_of(look, measure))
        last.append(
            f"{names.name(cell)}: {end_of(look)} with {look.seeds} seeds at "
            f"{measure.difference(look.difference.value)}, limit {limit}"
        )
    return (
        "Looks at each candidate: difference to the reference, and the limit of the look's test",
        f"{measure.step.capitalize()}, 95 % intervals, margin "
        f"{measure.distance(findings.decision.margin)}. Last looks: {'; '.join(last)}.",
        "A row is a look at a candidate, with so many seeds of it and of the reference. The thin "
        "line ends at the worst difference that the look's test leaves possible; the test allows "
        "for all looks at all candidates, and is strictest at the first. Once that end is out of "
        "the grey, the loss is shown to be smaller than the margin, and a candidate that beats the "
        "bare base is accepted (filled). Cross: dropped, as shown to be worse by more than the "
        "margin, in a test that is not drawn. Triangle: out of reach, as further seeds would "
        "hardly show it within the margin. Square: within the margin, no gain over the bare base "
        "shown. Empty circle: undecided. Arrow: outside the figure.",
    )


def memory_words(study: Study, findings: Findings) -> tuple[str, str, str]:
    """Title, description and caption of the figure of scores against memory."""
    names = CellNames.of(findings)
    points = findings.frontiers.get(Cost.serving_bytes, ())
    frontier = units.listed(names.name(point.cell) for point in points if point.on_frontier)
    return (
        f"Test {findings.measure.words} against memory, with the Pareto frontier",
        f"On the frontier for serving memory: {frontier}.",
        "The line is the frontier: nothing cheaper scores as well. The fuller a mark, the larger "
        "the share of resampled item sets that put it on the frontier.",
    )


def frontier_blocks(study: Study, findings: Findings, block: TableBlock) -> Iterator[Block]:
    """For people: a row a configuration, all costs beside each other."""
    if block.table.rows:
        summary = frontier_summary(block.table.rows, findings.measure)
        order = leading_first(summary.rows, findings)
        on_one = {
            place
            for place, row in enumerate(summary.rows)
            if any(point.on_frontier for point in row.places.values())
        }
        first = tuple(sorted(order, key=lambda place: place not in on_one))
        yield TableBlock(block.key, block.caption, summary, first, block.file)


def ways_words(findings: Findings) -> Iterator[Block]:
    """What the comparisons of ways to serve establish, mode by mode."""
    measures = dict.fromkeys((findings.measure, Measure.loss_nats))
    sentences = (said for measure in measures for said in way_sentences(findings, measure))
    yield Bullets(tuple((sentence,) for sentence in sentences))
    yield text(
        "A merged model is stored in its mode, loaded again and then scored: what is compared is "
        "what would be served. p-values are corrected (Holm) for the comparisons of each table; "
        "pairs that stand among the pairwise verdicts too are corrected there. 'No worse' "
        f"means worse by less than {_margins(findings)}."
    )


def _margins(findings: Findings) -> str:
    """5.0 points, or 0.0500 nats."""
    rule = findings.decision.rule
    margins = {Measure.accuracy: rule.margin_accuracy, Measure.loss_nats: rule.margin_loss_nats}
    shown = dict.fromkeys((findings.measure, Measure.loss_nats))
    return ", or ".join(measure.distance(margins[measure]) for measure in shown)


def forgetting_blocks(study: Study, findings: Findings, block: TableBlock) -> Iterator[Block]:
    """The table and where its rows are from; nothing where none may be forgotten."""
    if not block.table.rows:
        return
    yield block
    if (card := study.forgetting) is not None:
        yield Paragraph((f"These rows are {card.name}'s: {card.source}.",))


def loss_ways_blocks(study: Study, findings: Findings, block: TableBlock) -> Iterator[Block]:
    """The loss beside the accuracy; where the loss is the measure, once is enough."""
    if findings.ways_by_loss:
        yield block


def pairs_words(findings: Findings) -> Iterator[Block]:
    """What the tables of pairs hold."""
    measure = findings.measure
    yield text(
        f"Differences of test {measure.words}, first minus second, on the same items and seeds. "
        f"p-values are corrected (Holm) for all {len(findings.comparisons)} comparisons of "
        f"the study; 'no worse' means worse by less than "
        f"{measure.distance(findings.decision.margin)}."
    )
    if not findings.comparisons:
        yield text("Nothing can be compared: fewer than two configurations have scores.")


def pair_blocks(study: Study, findings: Findings, block: TableBlock) -> Iterator[Block]:
    """Every comparison, by what it compares."""
    for pairing, caption in PAIRING_CAPTIONS.items():
        rows = [row for row in block.table.rows if row.pairing is pairing]
        if study.has_served_forms:
            caption = FORM_CAPTIONS.get(pairing, caption)
        if rows:
            table, first = block.table.only(rows), leading_first(rows, findings)
            yield TableBlock(f"{block.key}-{pairing.value}", caption, table, first, block.file)


PAIRING_CAPTIONS = {
    Pairing.mode: "A mode against the reference mode, all else equal",
    Pairing.rank: "An adapter against the one of its mode that validates best",
    Pairing.base: "An adapter against its mode's bare base",
    Pairing.served: "Merged and stored against the same adapters apart on their base",
    Pairing.decision: "The recommended configuration against the reference",
}
FORM_CAPTIONS = {
    Pairing.rank: "An adapter against the one of its mode and form that validates best",
}
"""Where trials are served in forms."""


def cells_words(findings: Findings) -> Iterator[Block]:
    """What intervals of configurations cover."""
    estimates = [e for score in findings.cells if (e := score.test(findings.measure))]
    over = f" over {_items(estimates[0], 'test items')}" if estimates else ""
    yield Paragraph((
        f"Intervals{over} and the seeds that have a score. To choose among them by setting, score "
        "and cost: ", Link("explore.html", "explore.html"), ".",
    ))  # fmt: skip


def _items(sample: Estimate | Power, noun: str = "") -> str:
    """400 test items in 80 groups."""
    words = [units.count(sample.items), noun]
    if sample.clusters is not None:
        words.append(f"in {units.count(sample.clusters)} groups")
    return " ".join(filter(None, words))


def power_blocks(findings: Findings) -> Iterator[Block]:
    """What the item counts could show, and what they did."""
    power = findings.power
    if power is None:
        yield text("Unknown: nothing has a score.")
    else:
        yield Facts(tuple((term, (words,)) for term, words in _power_facts(power)))


def _power_facts(power: Power) -> list[tuple[str, str]]:
    measure = power.measure
    facts = [("Test items", _items(power))]
    facts += [
        (f"Before, if {share} of answers differ", _reach(reach, measure))
        for share, reach in power.before.items()
    ]
    if power.unpaired is not None:
        facts.append(
            ("Without pairing: two runs on separate items", _reach(power.unpaired, measure))
        )
    if power.after is not None:
        facts.append((
            "After, as measured between modes",
            f"a true difference of {measure.distance(power.after)} is found eight times "
            "of ten (median)",
        ))  # fmt: skip
    if power.after_corrected is not None:
        facts.append((
            f"The same, corrected for {power.comparisons} comparisons",
            f"{measure.distance(power.after_corrected)}",
        ))  # fmt: skip
    return facts


def _reach(reach: Reach, measure: Measure) -> str:
    return (
        f"{measure.distance(reach.significant)} are significant at 5 %; a true difference "
        f"of {measure.width(reach.found)} is found eight times of ten"
    )


def threats_blocks(findings: Findings) -> Iterator[Block]:
    """What speaks against the conclusions."""
    lines = tuple((sentence,) for sentence in findings.threats)
    yield Bullets(lines) if lines else text("The records show none of those that are looked for.")
