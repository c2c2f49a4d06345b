"""How a settling reads: its plan, each look, its end, and its table of looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lorascope.comparing.budget import Spent
from lorascope.comparing.costs import SECONDS_AN_HOUR
from lorascope.comparing.course import FIRST_LOOK
from lorascope.comparing.foreseen import Foreseen
from lorascope.comparing.results import CellKey, Measure, Verdict
from lorascope.comparing.settling import Look, Settling
from lorascope.config import DecideConfig
from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames, cell_columns, varied_fields
from lorascope.reporting.tables.table import Column, Table

ENDS = {
    Verdict.no_worse: "accepted",
    Verdict.worse: "dropped",
    Verdict.undecided: "undecided",
}


def end_of(look: Look) -> str:
    """What a look makes of its candidate, in a word or two."""
    if look.out_of_reach:
        return "out of reach"
    return "no gain over the base" if look.no_gain else ENDS[look.verdict]


def limit_of(look: Look, measure: Measure) -> float:
    """The worst difference that the look's test leaves at its level: inside the margin exactly
    where the look shows the candidate to be within it."""
    return look.tested.limit(look.level, -measure.sign)


def seeds_of_looks(looks: Sequence[Look]) -> list[str]:
    """How many seeds each has; `again` where so many of the same candidate were looked at before,
    with less known of the spread between seeds."""
    before: set[tuple[CellKey, int]] = set()
    found = []
    for look in looks:
        one = look.cell, look.seeds
        found.append(f"again {look.seeds}" if one in before else str(look.seeds))
        before.add(one)
    return found


def plan_text(study: Study, settling: Settling, to_come: Foreseen, packs: tuple[int, int]) -> str:
    """What may be trained, before anything is: how often, how much, and in which order.

    `packs` are those of the least and of the most that may come.
    """
    names, declared = _names(settling), declared_trials(study)
    keys = [trial.key for trial in study.trials] + [*study.missing.values()]
    lines = [
        f"search: settle: of {declared} declared trials those that the answer needs, wrong in at "
        f"most {100 * study.decide.error:g} %",
        f"each candidate is looked at with {FIRST_LOOK} seeds, then with one more each time, at "
        f"most {len({key.seed for key in keys})}",
    ]
    if settling.reference is None:
        lines.append(
            "first the reference is chosen: each of its mode is trained with one seed, and "
            "validation items choose that judge nothing else"
        )
    elif settling.order:
        order = "; ".join(names.name(cell) for cell in settling.order)
        lines.append(f"reference: {names.name(settling.reference)}; cheaper, in order: {order}")
    if settling.wanted:
        lines += _numbers(study, to_come, packs)
    return "\n".join(lines)


def _numbers(study: Study, to_come: Foreseen, packs: tuple[int, int]) -> list[str]:
    """How much it may be, and what ends it earlier."""
    (least, most), rule, there = to_come.trials, study.decide, len(study.trials)
    beside = f", beside {there} that are there" if there else ""
    limits = {
        "budget_trials": rule.budget_trials, "budget_hours": rule.budget_hours,
        "budget_money": rule.budget_money,
    }  # fmt: skip
    told = [f"{name}={value:g}" for name, value in limits.items() if value is not None]
    return [
        f"trials to come{beside}: at the least {least} (packs: {packs[0]}), where the next look at "
        f"a candidate accepts it; at the most {most} (packs: {packs[1]}), where each candidate "
        "takes all its seeds",
        _time(to_come, rule) or "how long that takes is known after the first round",
        *([f"what ends it earlier: {', '.join(told)}"] if told else []),
    ]


def _time(to_come: Foreseen, rule: DecideConfig) -> str | None:
    """What may come in hours and money, and what that rests on; None where nothing is trained."""
    pace = to_come.pace
    if pace is None:
        return None
    hours = [pace.seconds * trials / SECONDS_AN_HOUR for trials in to_come.trials]
    price, money = rule.price_per_hour, ""
    if price is not None:
        money = f", {_range(f'{price * one:.3g}' for one in hours)} in money"
    spread = _range(map(units.seconds, (pace.fastest, pace.slowest)))
    return (
        f"about {_range(map(units.hours, hours))} of training alone{money}, at "
        f"{units.seconds(pace.seconds)} s a trial: the mean of {pace.trials} that are there "
        f"({spread} s, a pack's time shared)"
    )


def _range(ends: Iterable[str]) -> str:
    return " to ".join(dict.fromkeys(ends))


def round_line(settling: Settling, spent: Spent, to_come: Foreseen, rule: DecideConfig) -> str:
    """What is trained next, what was spent before, and what may come with it and after it."""
    money = "" if spent.money is None else f", {spent.money:.3g} in money"
    time = _time(to_come, rule)
    rest = f"; from here {_range(map(str, to_come.trials))} trials, {time}" if time else ""
    return (
        f"next: {', '.join(settling.wanted)}; needed so far: {spent.trials} trials, "
        f"{units.hours(spent.hours)} of training{money}{rest}"
    )


def look_line(look: Look, settling: Settling, measure: Measure) -> str:
    """One look: what was seen, and what it was held against."""
    name = _names(settling).name(look.cell)
    return (
        f"look: {name}, {look.seeds} seeds: {measure.difference(look.difference.value)} "
        f"{measure.step}, 95 % interval {measure.difference_interval(look.difference.ends)}; p for "
        f"worse by the margin {units.p_value(look.p_within)}, held against "
        f"{units.p_value(look.level)}: {end_of(look)}"
    )


def outcome(study: Study, settling: Settling, stopped: str | None) -> str:
    """The answer, and what it cost beside the declared grid."""
    names, declared = _names(settling), declared_trials(study)
    used = f"{len(settling.used)} of {declared} declared trials were needed"
    if settling.wanted:
        return f"not settled ({stopped}); {used}"
    if settling.accepted is None:
        why = "no adapter is shown to beat the bare base"
        if settling.no_reference:
            why = f"there is no reference to hold candidates against: {settling.no_reference}"
        return f"nothing ships: {why}; {used}"
    shipped = names.full(settling.accepted)
    if settling.undecided:
        cells = "; ".join(names.name(cell) for cell in settling.undecided)
        return f"{shipped} ships, not settled: undecided with all seeds: {cells}; {used}"
    return f"the answer stands: {shipped}; {used}"


def settled_content(study: Study, settling: Settling, stopped: str | None) -> dict[str, Any]:
    """For machines: which of the declared trials are needed, and every look."""
    names = {trial.trial for trial in study.trials} | study.missing.keys()
    return {
        "needed": sorted(settling.used - set(settling.wanted)),
        "wanted": sorted(settling.wanted),
        "unneeded": sorted(names - settling.used),
        "stopped": stopped,
        "looks": [
            {
                "quant": look.cell.quant, **dict(look.cell.dials), "seeds": look.seeds,
                "difference": look.difference.value, "share": look.share, "level": look.level,
                "p_within": look.p_within, "p_beyond": look.p_beyond,
                "verdict": look.verdict.value,
            }
            for look in settling.looks
        ],
    }  # fmt: skip


def looks_table(settling: Settling | None, measure: Measure) -> Table[Look]:
    """Every look, in the order in which they were taken."""
    looks = settling.looks if settling else ()
    seeds = dict(zip(map(id, looks), seeds_of_looks(looks), strict=True))
    return Table(
        (
            *cell_columns(look.cell for look in looks),
            Column("seeds", "Seeds", get=lambda look: seeds[id(look)]),
            Column("difference", f"Difference {measure.step}", measure.difference,
                   get=lambda look: look.difference.value),
            Column("interval", "95 % interval", measure.difference_interval,
                   get=lambda look: look.difference.ends),
            Column("limit", "Limit of its test", measure.difference,
                   get=lambda look: limit_of(look, measure)),
            Column("share", "Information", lambda share: f"{100 * share:.0f} %"),
            Column("p_within", "p, worse by the margin", units.p_value),
            Column("level", "Held against", units.p_value),
            Column("p_beyond", "p, within the margin", units.p_value),
            Column("end", "Then", right=False, get=end_of),
        ),
        looks,
    )  # fmt: skip


def declared_trials(study: Study) -> int:
    """Trials of the declared grid, needed or not."""
    return len(study.trials) + len(study.missing) + len(study.unneeded)


def _names(settling: Settling) -> CellNames:
    cells = [cell for cell in (settling.reference, *settling.order) if cell is not None]
    return CellNames(varied_fields(cells))
