"""The answer in a person's words: how sure it is, its price, what is open, and what settles it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from lorascope.comparing.costs import COSTS
from lorascope.comparing.pairs import SIGNIFICANT
from lorascope.comparing.results import CellKey, Measure
from lorascope.comparing.ruling import Decision, Findings
from lorascope.config import Cost
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.pages.document import Code, Line
from lorascope.reporting.tables.token_prices import NOT_MEASURED, batches, money, speed
from lorascope.statistics.power import items_to_show

MOST_SEEDS = 32
"""Beyond so many nobody is advised to train more: items are what lacks."""
LISTED_SEEDS = 8
SECONDS_AN_HOUR = 3600


def in_short(findings: Findings, names: CellNames) -> Iterator[tuple[str, Line]]:
    """Terms, each with what is to be said of it, where something is recommended."""
    yield "How sure", (_sureness(findings, names),)
    if price := _price(findings, names):
        yield "Price", (price,)
    if tokens := _tokens(findings):
        yield "Tokens", (tokens,)
    yield "Open", (_open(findings.decision, names),)
    if settles := _what_settles(findings):
        yield "To settle it", settles


def _sureness(findings: Findings, names: CellNames) -> str:
    decision, measure = findings.decision, findings.measure
    reference = names.name(decision.reference) if decision.reference else "the reference"
    if decision.recommended == decision.reference:
        own = findings.score(decision.reference).validation if decision.reference else None
        more = " or more" if own and own.seeds > decision.seeds > 1 else ""
        return (
            f"It is {reference}, the reference itself: of {_seeds(decision.seeds)}{more}, nothing "
            "cheaper is shown to be as good."
        )
    if decision.test is None:
        return (
            f"It passed on validation items, with {_seeds(decision.seeds)}; too few test items are "
            f"scored under both it and {reference} to say more."
        )
    test = decision.test
    harm = f"that it is worse by {measure.distance(decision.margin)} or more"
    is_out = test.p_margin_holm < SIGNIFICANT
    verdict = f"{harm} is ruled out" if is_out else f"{harm} is not ruled out by test items alone"
    return (
        f"On test items it differs from {reference} by "
        f"{measure.difference(test.difference.value)} {measure.step} (95 % interval "
        f"{measure.difference_interval(test.difference.ends)}, {_seeds(test.difference.seeds)}); "
        f"{verdict}."
    )


def _seeds(count: int) -> str:
    return "one seed alone" if count < 2 else f"{count} seeds"


def _price(findings: Findings, names: CellNames) -> str | None:
    """In the cost of the rule, against the reference."""
    decision, cost = findings.decision, COSTS[findings.decision.rule.cost]
    own = _cost(findings, decision.recommended, cost.cost)
    if own is None:
        return None
    words = f"{units.amount(own, cost.unit)} of {cost.words}"
    other = _cost(findings, decision.reference, cost.cost)
    if decision.recommended == decision.reference or other is None or decision.reference is None:
        return f"{words}."
    share = f", {units.share(1 - own / other)} % less" if own < other else ""
    reference = names.name(decision.reference)
    return f"{words} instead of the {units.amount(other, cost.unit)} of {reference}{share}."


def _tokens(findings: Findings) -> str | None:
    """Speed and price of the recommended configuration's tokens, beside hosted prices; None where
    nobody named a price, as a speed alone is that of scoring on this machine."""
    prices = findings.token_prices
    own = next((one for one in prices if one.cell == findings.decision.recommended), None)
    hosted = [one for one in prices if one.hosted is not None]
    is_priced = findings.decision.rule.price_per_hour is not None or bool(hosted)
    if own is None or not is_priced or (own.timed_seconds is None and not hosted):
        return None
    said = [_way(own.read_per_second, own.read_money, "read")]
    said.append(_way(own.written_per_second, own.written_money, "written"))
    words = f"{said[0]}; {said[1]}"
    if own.device is not None:
        words += f"; on {own.device}, up to {batches(own.batch_sizes)} sequences at once"
    asked = [
        f"{one.hosted} asks {money(one.read_money or 0)} and {money(one.written_money or 0)}"
        for one in hosted
    ]
    return "; ".join([words, *asked]) + "."


def _way(tokens_per_second: float | None, price: float | None, verb: str) -> str:
    if tokens_per_second is None:
        return f"{verb}: {NOT_MEASURED}"
    told = f"{speed(tokens_per_second)} {verb} a second"
    return told if price is None else f"{told}, a million for {money(price)}"


def _cost(findings: Findings, cell: CellKey | None, cost: Cost) -> float | None:
    return None if cell is None else findings.score(cell).costs.get(cost)


@dataclass(frozen=True)
class Left:
    """Something that keeps an answer from being settled."""

    mark: str
    """Beside the headline."""
    words: str
    """In a sentence."""


def what_is_left(decision: Decision, names: CellNames) -> Iterator[Left]:
    """All that is open; nothing where the answer is settled."""
    if decision.one_seed:
        # One seed is one set of adapters, and no configuration.
        yield Left("for this seed, unknown for others", "what other seeds give")
    if decision.open:
        cheapest = names.name(decision.open[0].cell)
        others = len(decision.open) - 1
        and_more = f" and {units.count(others)} more cheaper ones" if others else ""
        yield Left(
            f"{len(decision.open)} cheaper undecided", f"whether {cheapest}{and_more} would do"
        )
    if unknown := len(decision.unknown):
        noun = "configuration that was" if unknown == 1 else "configurations that were"
        yield Left(f"{unknown} not judged", f"{units.count(unknown)} {noun} not judged")
    if decision.margin_hides_training:
        yield Left(
            "the margin is as large as what training gained",
            "a margin that is smaller than what training gained",
        )
    if decision.gain_is_unknown:
        yield Left("the bare base has no score", "the score of the bare base")
    if not decision.reference_is_declared:
        yield Left("not the declared reference", "the declared reference")


def _open(decision: Decision, names: CellNames) -> str:
    said = "; ".join(left.words for left in what_is_left(decision, names)) or "nothing"
    # The rest keeps its capitals: names of methods have some.
    return f"{said[0].upper()}{said[1:]}.{_held_to_more(decision, names)}"


def _held_to_more(decision: Decision, names: CellNames) -> str:
    """Why something is open whose own 95 % interval would do."""
    held = [row for row in decision.open if row.held_to is not None and not row.beyond_margin]
    if not held:
        return ""
    margin = decision.measure.distance(decision.margin)
    whose = names.name(held[0].cell) if len(held) == 1 else f"{units.count(len(held))} of them"
    verb = "lies" if len(held) == 1 else "lie"
    levels = units.confidence(row.held_to or 0.0 for row in held)
    return (
        f" By the 95 % interval alone {whose} {verb} inside the margin of {margin}; as "
        f"{why_held_to_more(decision)}, an interval of {levels} has to."
    )


def why_held_to_more(decision: Decision) -> str:
    """Why one candidate's own 95 % interval does not decide."""
    return "it is looked at again and again" if decision.settling else "several are compared"


def _what_settles(findings: Findings) -> Line | None:
    """More seeds of what may still ship, more validation items, or both."""
    decision = findings.decision
    items = _items_wanted(decision)
    known = sorted({trial.seed for score in findings.cells for trial in score.trials})
    wanted = _seeds_wanted(decision, len(known))
    plan = decision.projection
    # However the seeds come out, their interval would be as wide as the margin; or only by answers
    # that differ, each seed's on other items, could they show more than these items.
    too_wide = plan is not None and decision.one_seed and plan.lowest >= decision.margin
    too_wide = too_wide or _items_there(decision) < _least_items(decision)
    if wanted is None or wanted > MOST_SEEDS or (too_wide and items):
        told = f"{items.capitalize()} ({_more_items(decision)}); more seeds alone would hardly do."
        return (told,) if items else _where_nothing_does(decision)
    more = wanted - len(known)
    seeds = [*known, *range(known[-1] + 1, known[-1] + 1 + more)]
    listed = ",".join(map(str, seeds))
    if len(seeds) > LISTED_SEEDS and seeds == list(range(seeds[0], seeds[-1] + 1)):
        listed = f"range({seeds[0]},{seeds[-1] + 1})"
    command = f"dvc exp run -S search=settle -S 'seed=\"{listed}\"'"
    by_items = items and not any(row.seeds_needed for row in decision.open)
    besides = f" What is cheaper may take {items}." if by_items else ""
    besides += _settles_on_too_few(decision)
    return Code(command), f" trains what the answer needs, {_work(findings, seeds)}.{besides}"


def _settles_on_too_few(decision: Decision) -> str:
    """Where settling cannot accept anything, whatever the seeds give."""
    items = decision.settle_items
    if items is None or items.judging >= items.least:
        return ""
    choose = ""
    if items.judging < items.there:
        choose = f" of {items.there} (the others choose the reference, unless "
        choose += "decide.reference_rank names it)"
    return (
        f" But {items.judging} validation items{choose} would judge, and fewer than {items.least} "
        "show nothing within the margin, were not one answer different: first name more rows, or "
        "raise validation_fraction in the file of conf/data."
    )


def _items_wanted(decision: Decision) -> str:
    """Of what is open, if its differences stay."""
    found = [row.items_needed for row in decision.open if row.items_needed is not None]
    if not found:
        return ""
    least = _least_items(decision)
    ends = dict.fromkeys(units.count(max(end, least)) for end in (min(found), max(found)))
    return f"about {' to '.join(ends)} validation items in all"


def _items_there(decision: Decision) -> int:
    """Validation items that what is open was held against the reference on."""
    return max((row.difference.items for row in decision.open if row.difference), default=0)


def _least_items(decision: Decision) -> int:
    """Validation items below which nothing that is open would pass, were not one answer different;
    0 where losses decide."""
    is_share = decision.measure is Measure.accuracy and decision.open
    return items_to_show(decision.margin, len(decision.open)) if is_share else 0


def _more_items(decision: Decision) -> str:
    return (
        f"there are {units.count(_items_there(decision))}: name more rows, or raise "
        "validation_fraction in the file of conf/data"
    )


def _where_nothing_does(decision: Decision) -> Line | None:
    """What remains where neither so many items nor seeds can be named."""
    if not decision.open:
        return None
    return (
        f"More validation items ({_more_items(decision)}), or another margin: the differences "
        "that are open lie too near it, or vary too much from seed to seed, to say how many.",
    )


def _seeds_wanted(decision: Decision, known: int) -> int | None:
    """Seeds in all that would settle what is open, where it stays as it is."""
    found = [row.seeds_needed for row in decision.open if row.seeds_needed is not None]
    if decision.one_seed:
        more = decision.projection.more_seeds if decision.projection else 3
        # Few seeds tell how much seeds vary; what they then leave open, the next report says.
        return known + more
    return max(found) if found and max(found) > known else None


def _work(findings: Findings, seeds: Sequence[int]) -> str:
    """At most so many trials with these seeds, and how long trials of these configurations took."""
    # A trial has its adapter apart, however many forms it is served in.
    scores = {score.cell.apart: score for score in findings.cells if not score.cell.base}
    wanted = {(cell, seed) for cell in scores for seed in seeds}
    trained = {(s.cell.apart, trial.seed) for s in findings.cells for trial in s.trials}
    trials = len(wanted - trained)
    words = f"at most {units.count(trials)} more {'trial' if trials == 1 else 'trials'}"
    took = [s for own in scores.values() if (s := own.costs.get(Cost.train_seconds)) is not None]
    if not took:
        return words
    hours = trials * fmean(took) / SECONDS_AN_HOUR
    time = f"about {units.hours(hours)} of training as it went here"
    return f"{words}, {time}, beside loading and scoring"
