"""Scores of each kind of rows, and tests against the reference within each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorascope.comparing.cells import CellData, Compared, base_cell, join_scored
from lorascope.comparing.estimates import Tested, cell_estimate, compare_joined, mean_score
from lorascope.comparing.pairs import Pair, tested_pair, verdict_of
from lorascope.comparing.reference import best_by_form, near_best
from lorascope.comparing.results import CellKey, Estimate, Pairing, Verdict
from lorascope.records import ItemResult, item_column
from lorascope.statistics.families import choice_factor, holm, holm_hopeful

MOST_GROUPS = 30
"""Groups that are compared, the largest first: each takes from what the others can show."""


@dataclass(frozen=True)
class AgainstReference:
    """A configuration minus the reference, on the rows of one group."""

    difference: Estimate
    p_holm: float
    """Corrected for all groups and configurations."""
    verdict: Verdict


@dataclass(frozen=True)
class GroupScore:
    """One configuration on the test rows of one group."""

    group: str
    cell: CellKey
    value: float
    """Mean over its rows and seeds."""
    items: int
    score: Estimate | None
    """`value` with its interval; None where there is one row, or one cluster of rows."""
    against: AgainstReference | None
    """None of the reference itself, and where too few rows are common."""


def group_scores(
    compared: Compared, reference: CellKey | None, recommended: CellKey | None
) -> tuple[GroupScore, ...]:
    """Of the leading configurations, group after group, the largest first; nothing where the data
    have no groups.

    Two families are corrected apart, by Holm's method, as for whole test splits: 'there is a
    difference' and 'it is no worse than the margin'. Each test has its own group's spread between
    seeds, which is not pooled.
    """
    groups = groups_of(compared)
    if not groups or reference is None:
        return ()
    found: list[tuple[GroupScore, Tested | None]] = []
    for group in groups:
        within = _of_group(compared, group)
        for data in _leading(compared, reference, recommended):
            joined = join_scored(data.scored, within.study, "test")
            if joined is None or not math.isfinite(value := mean_score(joined, compared.measure)):
                continue
            score = cell_estimate(joined, compared.measure)
            own = GroupScore(group, data.cell, value, joined.items, score, None)
            found.append((own, _tested(data, reference, within)))
    chosen = near_best(compared.scores.values(), reference, compared)
    tests = [tested for _, tested in found if tested is not None]
    differing = holm([_chosen_p(one, chosen) for one in tests])
    margins = holm_hopeful([one.p_margin for one in tests])
    corrected = iter(zip(tests, differing, margins, strict=True))
    return tuple(
        replace(own, against=_against(compared, next(corrected))) if tested else own
        for own, tested in found
    )


def groups_of(compared: Compared) -> list[str]:
    """Names of the groups of test rows, by their number of rows in any evaluation."""
    counts: Counter[str] = Counter()
    for splits in compared.study.items.values():
        named = item_column(splits.get("test", ()), "group")
        counts |= Counter(group for group in named if group is not None)
    by_size = sorted(counts, key=lambda group: (-counts[group], group))
    return by_size[:MOST_GROUPS]


def _of_group(compared: Compared, group: str) -> Compared:
    """The same study with no other test rows than those of `group`."""
    items = {
        identity: {**splits, "test": _named(splits.get("test", ()), group)}
        for identity, splits in compared.study.items.items()
    }
    return replace(compared, study=replace(compared.study, items=items))


def _named(items: Sequence[ItemResult], group: str) -> list[ItemResult]:
    named = item_column(items, "group")
    return [items[place] for place, name in enumerate(named) if name == group]


def _leading(
    compared: Compared, reference: CellKey, recommended: CellKey | None
) -> Sequence[CellData]:
    """The reference, its bare base, what is recommended, and what validates best of each mode and
    form."""
    best = best_by_form(compared).values()
    wanted = dict.fromkeys([base_cell(reference.quant), reference, recommended, *best])
    cells = [compared.cells[cell] for cell in wanted if cell is not None]
    return [data for data in cells if data.scored]


def _tested(data: CellData, reference: CellKey, within: Compared) -> Tested | None:
    """None of the reference itself; a bare base, which has no seeds, stands for each of them."""
    held = within.cells[reference]
    if data.cell == reference or not held.scored:
        return None
    if not data.cell.base:
        return tested_pair(Pair(Pairing.decision, data, held), within, "test")
    both = [data.scored[0]] * len(held.scored) + list(held.scored)
    joined = join_scored(both, within.study, "test")
    return compare_joined(joined, within.measure, within.margin) if joined else None


def _chosen_p(tested: Tested, choices: int) -> float:
    """p of a difference; the reference validates best, by seeds that it is tested on."""
    factor = choice_factor(choices) if tested.difference.seeds > 1 else 1.0
    return min(1.0, factor * tested.p_value)


def _against(
    compared: Compared, corrected: tuple[Tested, float | None, float | None]
) -> AgainstReference:
    tested, p_holm, p_margin = corrected
    p, q = p_holm or 0.0, p_margin or 0.0
    return AgainstReference(tested.difference, p, verdict_of(tested, compared.measure, p, q))
