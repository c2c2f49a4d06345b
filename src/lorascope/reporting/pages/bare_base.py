"""The answer where training is not shown to have helped: the bare base does as well."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.comparing.results import Measure
from lorascope.comparing.ruling import Findings, Gain
from lorascope.config import Cost
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.measure_text import MeasureText, p_value
from lorascope.reporting.pages.document import Answer, Code, Fact, Line

NONE_BEATS_BASE = "No adapter is shown to beat the bare base"


def needless_answer(findings: Findings, names: CellNames) -> Answer:
    """Nothing is shipped: no adapter, or none that the rule lets pass, is shown to have learnt."""
    if findings.decision.none_beats_base:
        headline, state = NONE_BEATS_BASE, "nothing to ship"
    else:
        headline = "No configuration can be recommended"
        state = "none that passes the rule is shown to beat the bare base"
    return Answer(
        headline, state, False, tuple(_facts(findings, names)), tuple(_notes(findings, names))
    )


def gain_fact(gain: Gain, findings: Findings, names: CellNames, label: str) -> Fact:
    """What an adapter gained, on validation items."""
    texts = MeasureText(findings.measure)
    return Fact(
        label,
        f"{texts.difference(gain.difference.value)} {texts.step}",
        f"{names.name(gain.cell)} over {names.name(gain.base)}, on validation items; 95 % interval "
        f"{texts.difference_interval(gain.difference)}, Holm p {p_value(gain.p_holm)}",
    )


def _facts(findings: Findings, names: CellNames) -> Iterator[Fact]:
    texts = MeasureText(findings.measure)
    best = _best(findings)
    yield gain_fact(best, findings, names, "Largest gain")
    base = findings.score(best.base)
    estimate = base.test(findings.measure)
    if estimate is not None:
        size = base.costs.get(Cost.serving_bytes)
        stored = "" if size is None else f"; {units.size(size)}"
        yield Fact(
            f"Test {texts.name} of {names.name(best.base)}",
            f"{texts.score(estimate.value)} {texts.unit}",
            f"95 % interval {texts.interval(estimate)}{stored}",
        )
    if findings.chance is not None:
        chance = f"{units.percent(findings.chance)} %"
        yield Fact("Chance", chance, "a guess among the choices of each test item")


def _best(findings: Findings) -> Gain:
    sign = 1 if findings.measure is Measure.accuracy else -1
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
