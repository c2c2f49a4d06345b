"""The answer where training is not shown to have helped: the bare base does as well."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.comparing.ruling import Findings, Gain
from lorascope.config import Cost
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.pages.document import Answer, Code, Fact, Line

NONE_BEATS_BASE = "No adapter is shown to beat the bare base"


def needless_answer(findings: Findings, names: CellNames) -> Answer:
    """Nothing is shipped: no adapter, or none that the rule lets pass, is shown to have learnt."""
    decision = findings.decision
    shown = {gain.cell for gain in decision.gains if gain.shown}
    if decision.none_beats_base:
        headline, state = NONE_BEATS_BASE, "nothing to ship"
    elif (limit := decision.rule.max_forgetting_nats) is not None and any(
        row.cell in shown and row.ineligible for row in decision.candidates
    ):
        headline = "No configuration can be recommended"
        state = f"none that beats the bare base is shown to forget at most {limit:g} nats"
    else:
        headline = "No configuration can be recommended"
        state = "none that passes the rule is shown to beat the bare base"
    return Answer(
        headline, state, False, tuple(_facts(findings, names)), tuple(_notes(findings, names))
    )


def gain_fact(gain: Gain, findings: Findings, names: CellNames, label: str) -> Fact:
    """What an adapter gained, on validation items: they judge it, and choose."""
    measure = findings.measure
    return Fact(
        f"{label}, on validation items",
        f"{measure.difference(gain.difference.value)} {measure.step}",
        f"{names.name(gain.cell)} over {names.name(gain.base)}; 95 % interval "
        f"{measure.difference_interval(gain.difference.ends)}, Holm p {units.p_value(gain.p_holm)}",
    )


def _facts(findings: Findings, names: CellNames) -> Iterator[Fact]:
    measure = findings.measure
    best = _best(findings)
    yield gain_fact(best, findings, names, "Largest gain")
    base = findings.score(best.base)
    estimate = base.test(findings.measure)
    if estimate is not None:
        size = base.costs.get(Cost.serving_bytes)
        stored = "" if size is None else f"; {units.size(size)}"
        yield Fact(
            f"Test {measure.words} of {names.name(best.base)}",
            f"{measure.score(estimate.value)} {measure.unit}",
            f"95 % interval {measure.interval(estimate.ends)}{stored}",
        )
    if findings.chance is not None:
        chance = f"{units.percent(findings.chance)} %"
        yield Fact("Chance", chance, "a guess among the choices of each test item")


def _best(findings: Findings) -> Gain:
    sign = findings.measure.sign
    return max(findings.decision.gains, key=lambda gain: sign * gain.difference.value)


def _notes(findings: Findings, names: CellNames) -> Iterator[Line]:
    decision = findings.decision
    yield from ((sentence,) for sentence in findings.coverage)
    yield (
        f"Each of {len(decision.gains)} adapters is held against the bare base that validates best "
        "among those of no more bytes, over the validation items, at 5 %, corrected for their "
        "number (Holm).",
    )
    yield (
        "More validation items show smaller gains; more steps, more data or another learning rate "
        "may make larger ones. The bare base itself needs no adapter.",
    )
    yield (Code("ship: auto"), " merges nothing; a trial that ", Code("ship"), " names is merged.")
    for row in decision.candidates:
        if row.ineligible is not None:
            yield (f"{names.name(row.cell)}: {row.ineligible}.",)
