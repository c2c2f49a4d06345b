"""The answer on top of the page, the terminal and the metrics: what to ship and how sure it is.

Every sentence is chosen by a typed verdict and filled with its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.comparing.costs import COSTS
from lorascope.comparing.results import CellScore, Estimate, Measure
from lorascope.comparing.ruling import Candidate, Decision, Findings
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.pages.bare_base import gain_fact, needless_answer
from lorascope.reporting.pages.document import Answer, Code, Fact, Line
from lorascope.reporting.pages.in_short import in_short, what_is_left, why_held_to_more

SHOWN_OPEN = 3
"""Open candidates that are spelled out; the table has them all."""


def answer(findings: Findings) -> Answer:
    """What to ship, in numbers."""
    decision, names = findings.decision, CellNames.of(findings)
    covered = [(sentence,) for sentence in findings.coverage]
    if decision.recommended is None and decision.reference is not None and decision.gains:
        return needless_answer(findings, names)
    if decision.recommended is None:
        return Answer(
            "No configuration can be recommended",
            "no score", False, (), (*covered, *_why_nothing(decision, names)),
        )  # fmt: skip
    partly = "; part of the model is neither quantized nor adapted as named" if covered else ""
    return Answer(
        f"Ship {names.full(decision.recommended)}",
        f"{_state(decision, names)}{partly}",
        decision.settled,
        tuple(_facts(findings, names)),
        (*covered, *_notes(findings, names)),
        tuple(in_short(findings, names)),
    )


def _state(decision: Decision, names: CellNames) -> str:
    return "; ".join(left.mark for left in what_is_left(decision, names)) or "settled"


def _why_nothing(decision: Decision, names: CellNames) -> Iterator[Line]:
    if decision.reference is None:
        yield (
            "No adapter has all of its declared seeds trained and scored on two or more "
            "independent groups of items.",
        )
    for row in decision.candidates:
        if row.ineligible is not None:
            yield (f"{names.name(row.cell)}: {row.ineligible}.",)


def _facts(findings: Findings, names: CellNames) -> Iterator[Fact]:
    decision, measure = findings.decision, findings.measure
    assert decision.recommended is not None
    chosen = findings.score(decision.recommended)
    estimate = chosen.test(findings.measure)
    if decision.test is not None and decision.reference is not None:
        difference = decision.test.difference
        yield Fact(
            f"Against {names.name(decision.reference)}",
            f"{measure.difference(difference.value)} {measure.step}",
            f"95 % interval {measure.difference_interval(difference.ends)}, on test items",
            in_short=True,
        )
    if estimate is not None:
        yield from _score_facts(estimate, decision, names, measure)
    yield from _shipped_fact(chosen, decision, measure)
    for gain in decision.gains:
        if gain.cell == decision.recommended:
            yield gain_fact(gain, findings, names, "Gained by training")
    yield from _cost_fact(findings, chosen, names)
    if decision.settling is not None:
        yield Fact(
            "Trials that the answer needed",
            units.count(len(decision.settling.used)),
            f"of {units.count(decision.declared)} declared; the others were not trained for it",
        )


def _score_facts(
    own: Estimate, decision: Decision, names: CellNames, measure: Measure
) -> Iterator[Fact]:
    """The score with seeds that did not choose, where there are some, before that with all."""
    fresh, items = decision.fresh, items_text(own)
    value = f"{measure.score(own.value)} {measure.unit}"
    interval = f"95 % interval {measure.interval(own.ends)}"
    if fresh is None:
        why = UNKNOWN_SEED if decision.settling is None else CARRIES_LUCK
        why = "chosen with this seed, whose luck is in it" if own.seeds == 1 else why
        yield Fact(f"Test {measure.words}", value, f"{interval}; {items}, {why}")
        return
    yield Fact(
        f"Test {measure.words} of a new seed",
        f"{measure.score(fresh.estimate.value)} {measure.unit}",
        f"95 % interval {measure.interval(fresh.estimate.ends)}; {items_text(fresh.estimate)}: "
        f"each seed scores what the rule chose without it{_chosen_otherwise(decision, names)}",
    )
    yield Fact(f"Test {measure.words} of the chosen seeds", value, f"{interval}; {CARRIES_LUCK}")


def _chosen_otherwise(decision: Decision, names: CellNames) -> str:
    chosen = decision.fresh.chosen if decision.fresh else ()
    others = dict.fromkeys(cell for cell in chosen if cell != decision.recommended)
    return f" ({', '.join(map(names.name, others))}, not what ships, among them)" if others else ""


CARRIES_LUCK = "chosen with these seeds, whose luck is in it"
UNKNOWN_SEED = (
    f"{CARRIES_LUCK}; what a new seed scores is unknown, as without some seed the rule chooses "
    "nothing, or what has no score with that seed"
)


def _shipped_fact(chosen: CellScore, decision: Decision, measure: Measure) -> Iterator[Fact]:
    """The adapter that `ship: auto` takes, which is better than the mean of its seeds."""
    trial = next((t for t in chosen.trials if t.trial == decision.trial), None)
    scored = [t for t in chosen.trials if t.test is not None]
    if trial is None or trial.test is None or len(scored) < 2:
        return
    yield Fact(
        "The adapter that ships (ship: auto)",
        f"{measure.score(trial.test)} {measure.unit}",
        f"on test items; seed {trial.seed}, the best of {len(scored)} on validation items",
    )


def _cost_fact(findings: Findings, chosen: CellScore, names: CellNames) -> Iterator[Fact]:
    decision, cost = findings.decision, COSTS[findings.decision.rule.cost]
    costs = {row.cell: row.cost for row in decision.candidates}
    own, other = costs.get(chosen.cell), costs.get(decision.reference or chosen.cell)
    if own is None:
        return
    note = "the reference itself"
    if decision.reference is not None and decision.reference != chosen.cell:
        name = names.name(decision.reference)
        note = f"{name}: {'unknown' if other is None else units.amount(other, cost.unit)}"
    yield Fact(cost_label(findings), units.amount(own, cost.unit), note, in_short=True)


def cost_label(findings: Findings) -> str:
    """What the fact of the rule's cost is called."""
    return COSTS[findings.decision.rule.cost].words.capitalize()


def _notes(findings: Findings, names: CellNames) -> Iterator[Line]:
    decision = findings.decision
    if decision.settled:
        yield ("No cheaper configuration is left undecided.",)
    for row in decision.unknown:
        yield (f"Not judged: {names.name(row.cell)}: {row.ineligible or 'its cost is unknown'}.",)
    # Those that more items may let ship come first.
    shown = sorted(decision.open, key=lambda row: row.beyond_margin)[:SHOWN_OPEN]
    yield from (_open(row, decision, names) for row in shown)
    yield from _projection(decision, names)
    yield _rule(decision, names)
    yield from _basis(decision)
    yield from _on_test(findings)
    if decision.trial is not None:
        yield ("Trial: ", Code(decision.trial), ".")


def _rule(decision: Decision, names: CellNames) -> Line:
    measure = decision.measure
    stands_in = "" if decision.reference_is_declared else " (in place of the declared one)"
    reference = names.name(decision.reference) if decision.reference else "none"
    return (
        f"Rule: least {COSTS[decision.rule.cost].words} whose validation {measure.words} is "
        f"shown to be worse by less than {measure.distance(decision.margin)} than the "
        f"reference, {reference}{stands_in}; test items choose nothing.",
    )


def _basis(decision: Decision) -> Iterator[Line]:
    measure = decision.measure
    if decision.recommended == decision.reference:
        yield (
            "No cheaper configuration passed and is shown to beat the bare base, so the reference "
            "itself is recommended.",
        )
        return
    corrected = "Holm" if decision.settling is None else "of its look, for all looks and candidates"
    for row in decision.candidates:
        if row.cell == decision.recommended and row.difference and row.p_margin_holm is not None:
            yield (
                f"On {units.count(row.difference.items)} validation items it differs from the "
                f"reference by {measure.difference(row.difference.value)} {measure.step}, 95 % "
                f"interval {measure.difference_interval(row.difference.ends)}; p for worse by the "
                f"margin {units.p_value(row.p_margin_holm)} ({corrected}).",
            )


def _on_test(findings: Findings) -> Iterator[Line]:
    """What the test items say of the same pair, among all comparisons of the study."""
    test, margin = findings.decision.test, findings.decision.margin
    if test is None:
        return
    measure = findings.measure
    harm = -test.difference.low if findings.measure is Measure.accuracy else test.difference.high
    reach = "stays inside" if harm < margin else "reaches beyond"
    yield (
        f"On test items the interval of the difference {reach} the margin of "
        f"{measure.distance(margin)}. As one of {len(findings.comparisons)} comparisons, "
        f"corrected by Holm, the pair is {test.verdict.value}: p is {units.p_value(test.p_holm)} "
        f"for any difference and {units.p_value(test.p_margin_holm)} for worse by the margin.",
    )


def _open(row: Candidate, decision: Decision, names: CellNames) -> Line:
    measure = decision.measure
    shown = ""
    if row.difference is not None:
        shown = (
            f": {measure.difference(row.difference.value)} {measure.step} on validation, 95 % "
            f"interval {measure.difference_interval(row.difference.ends)}"
        )
        if row.p_margin_holm is not None:
            shown += f", p for worse by the margin {units.p_value(row.p_margin_holm)} (corrected)"
    why = _why_open(row, decision)
    return (f"Open: {names.name(row.cell)}{shown}. {why}{what_settles(row)}",)


def _why_open(row: Candidate, decision: Decision) -> str:
    """Where the interval that is shown would do, that it does not decide."""
    if row.held_to is None:
        return ""
    side = "beyond" if row.beyond_margin else "inside"
    margin = decision.measure.distance(decision.margin)
    return (
        f"That interval lies {side} the margin of {margin}, but it is of this one alone: as "
        f"{why_held_to_more(decision)}, one of "
        f"{units.confidence([row.held_to])} would have to. "
    )


def what_settles(row: Candidate) -> str:
    """Items or seeds that would decide an open candidate, if its difference stays."""
    ways = []
    if row.items_needed is not None:
        ways.append(f"{units.count(row.items_needed)} validation items in all")
    if row.seeds_needed is not None:
        ways.append(f"{units.count(row.seeds_needed)} seeds in all")
    if not ways and row.near_margin:
        return "The difference lies too near the margin to say how many items would settle it."
    if not ways:
        return "Items alone would not settle it: seeds differ too much for their number."
    outcome = ", as worse by more than the margin" if row.beyond_margin else ""
    return f"If the difference stays, {' or '.join(ways)} would settle it{outcome}."


def _projection(decision: Decision, names: CellNames) -> Iterator[Line]:
    """What more seeds would buy: for the recommended cell, or the cheapest open one."""
    plan, measure = decision.projection, decision.measure
    subjects = [decision.recommended, *(row.cell for row in decision.open)]
    subject = next((cell for cell in subjects if cell not in (None, decision.reference)), None)
    if plan is None or subject is None:
        return
    least, most = measure.width(plan.lowest), plan.highest
    why = "" if plan.seed_spread_known else ", as one seed does not show how much seeds vary"
    if most is None:
        then = f"± {measure.distance(plan.lowest)} at best"
    elif measure.width(most) == least:
        then, why = f"± {measure.distance(most)}", ""
    else:
        then = f"between ± {least} and ± {measure.distance(most)}"
    count = NUMBER_WORDS.get(plan.more_seeds, str(plan.more_seeds))
    now, seeds = measure.width(plan.half_width), "seed" if plan.more_seeds == 1 else "seeds"
    interval = f"the interval of {names.name(subject)} against the reference on validation items"
    if plan.lowest >= plan.half_width:
        yield (
            f"{count} more {seeds} would not make {interval} narrower than ± {now}: too few "
            "answers differ, so that only more items would.",
        )
        return
    yield (f"{count} more {seeds} would take {interval} from ± {now} to {then}{why}.",)


NUMBER_WORDS = {1: "One", 2: "Two", 3: "Three", 4: "Four", 5: "Five"}


def items_text(estimate: Estimate) -> str:
    """What an estimate is taken over: 400 items in 80 clusters, 3 seeds."""
    clusters = "" if estimate.clusters is None else f" in {units.count(estimate.clusters)} clusters"
    seeds = "1 seed" if estimate.seeds == 1 else f"{estimate.seeds} seeds"
    return f"{units.count(estimate.items)} items{clusters}, {seeds}"
