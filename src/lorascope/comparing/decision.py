"""The declared rule's answer: the cheapest configuration that is no worse than the reference, and
that is shown to beat the bare base.

Everything here is judged on validation items; test items only report what was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lorascope.comparing.candidates import judged_candidates
from lorascope.comparing.cells import CellData, Compared, base_cell
from lorascope.comparing.estimates import Tested
from lorascope.comparing.gains import gains
from lorascope.comparing.prospects import project_seeds
from lorascope.comparing.reference import goodness, reference_of
from lorascope.comparing.results import CellKey, CellScore, Measure, Verdict
from lorascope.comparing.ruling import Candidate, Decision, Projection
from lorascope.records import Status

MORE_SEEDS = 3
"""What the report says further seeds would buy."""


def decide(compared: Compared) -> Decision:
    """Apply `study.decide` to validation items; the caller adds `Decision.test`."""
    rule, measure = compared.study.decide, compared.measure
    cells, by_cell = compared.cells, compared.scores
    held = reference_of(list(by_cell.values()), rule, measure)
    reference = held.cell if held else None
    judged = judged_candidates(compared, held)
    tests = {candidate.cell: tested for candidate, tested in judged}
    ordered = sorted(
        (candidate for candidate, _ in judged), key=lambda c: _order(c, by_cell, measure)
    )
    gained = gains(compared)
    needless = {gain.cell for gain in gained if not gain.shown}
    recommended = next(
        (c for c in ordered if _ships(c, reference) and c.cell not in needless), None
    )
    open_ones = tuple(
        c for c in ordered if recommended and _is_cheaper(c, recommended) and _is_open(c)
    )
    return Decision(
        rule=rule,
        measure=measure,
        margin=compared.margin,
        reference=reference,
        reference_gain=_gain(by_cell, reference, measure),
        gains=gained,
        reference_is_declared=held is not None and held.is_declared,
        candidates=tuple(ordered),
        recommended=recommended.cell if recommended else None,
        trial=_best_trial(by_cell, recommended, measure),
        open=open_ones,
        unknown=tuple(c for c in ordered if recommended and _is_unknown(c, recommended, cells)),
        test=None,
        projection=_projection(tests, recommended, open_ones),
        seeds=_seeds(ordered, recommended, by_cell),
    )


def _seeds(
    candidates: Sequence[Candidate],
    recommended: Candidate | None,
    scores: Mapping[CellKey, CellScore],
) -> int:
    """The fewest seeds that the answer rests on; 0 without one."""
    if recommended is None:
        return 0
    own = scores[recommended.cell].validation
    judged = [
        candidate.difference.seeds
        for candidate in candidates
        if candidate.difference is not None
        and (candidate.cell == recommended.cell or _is_cheaper(candidate, recommended))
    ]
    return min([own.seeds if own else 0, *judged])


def _gain(
    scores: Mapping[CellKey, CellScore], reference: CellKey | None, measure: Measure
) -> float | None:
    base = scores.get(base_cell(reference.quant)) if reference else None
    if reference is None or base is None or base.validation is None:
        return None
    return goodness(scores[reference], measure) - goodness(base, measure)


def _ships(candidate: Candidate, reference: CellKey | None) -> bool:
    if candidate.ineligible:
        return False
    return candidate.cell == reference or candidate.verdict is Verdict.no_worse


def _is_open(candidate: Candidate) -> bool:
    return candidate.ineligible is None and candidate.verdict is Verdict.undecided


def _is_unknown(
    candidate: Candidate, recommended: Candidate, cells: Mapping[CellKey, CellData]
) -> bool:
    """Not judged, and not known to cost more; a training that diverged is known not to ship."""
    if candidate.verdict is not None or candidate.cell == recommended.cell:
        return False
    if any(seed.status == Status.diverged for seed in cells[candidate.cell].declared):
        return False
    least = candidate.least_cost
    return least is None or recommended.cost is None or least < recommended.cost


def _is_cheaper(candidate: Candidate, than: Candidate) -> bool:
    if candidate.cost is None or than.cost is None:
        return False
    return candidate.cost < than.cost


def _order(
    candidate: Candidate, scores: Mapping[CellKey, CellScore], measure: Measure
) -> tuple[float, float, CellKey]:
    cost = math.inf if candidate.cost is None else candidate.cost
    return cost, -goodness(scores[candidate.cell], measure), candidate.cell


def _best_trial(
    scores: Mapping[CellKey, CellScore], recommended: Candidate | None, measure: Measure
) -> str | None:
    """Of the recommended cell, the seed that validates best; ties go to the lowest seed."""
    if recommended is None:
        return None
    known = [t for t in scores[recommended.cell].trials if t.validation is not None]
    best = max(known, key=lambda t: (measure.sign * (t.validation or 0.0), -t.seed), default=None)
    return best.trial if best else None


def _projection(
    tested: Mapping[CellKey, Tested | None],
    recommended: Candidate | None,
    open_ones: Sequence[Candidate],
) -> Projection | None:
    """For the recommended cell against the reference; where that is one, the cheapest open one."""
    for candidate in [recommended, *open_ones]:
        result = tested.get(candidate.cell) if candidate else None
        if result is not None:
            return project_seeds(result, MORE_SEEDS)
    return None
