"""The declared rule's answer: the cheapest configuration that is no worse than the reference.

Everything here is judged on validation items; test items only report what was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from lorascope.comparing.candidates import judged_candidates
from lorascope.comparing.cells import CellData, base_cell
from lorascope.comparing.estimates import Tested
from lorascope.comparing.prospects import project_seeds
from lorascope.comparing.results import Cell, CellScore, Measure, Verdict
from lorascope.comparing.ruling import Candidate, Decision, Projection
from lorascope.config import DecideConfig
from lorascope.records import Status, Study

MORE_SEEDS = 3
"""What the report says further seeds would buy."""


def margin_of(rule: DecideConfig, measure: Measure) -> float:
    """The rule's margin in the unit of `measure`."""
    return rule.margin_accuracy if measure is Measure.accuracy else rule.margin_loss_nats


def goodness(score: CellScore, measure: Measure) -> float:
    """Validation score for sorting, more is better; the unscored come last."""
    if score.validation is None:
        return -math.inf
    value = score.validation.value
    return value if measure is Measure.accuracy else -value


def best_by_mode(scores: Iterable[CellScore], measure: Measure) -> dict[str, Cell]:
    """The adapter of each mode that validates best; ties go to the smaller one.

    One with a seed missing is taken only where a mode has no other.
    """
    best: dict[str, CellScore] = {}

    def order(score: CellScore) -> tuple[bool, float, int, Cell]:
        return not score.complete, -goodness(score, measure), score.cell.rank, score.cell

    for score in sorted(scores, key=order):
        if not score.cell.is_base and score.validation is not None:
            best.setdefault(score.cell.quant, score)
    return {quant: score.cell for quant, score in best.items()}


def reference_of(
    scores: Sequence[CellScore], rule: DecideConfig, measure: Measure
) -> tuple[Cell | None, bool]:
    """The reference cell, and whether it is the one that the rule declares.

    Where the declared rank has no complete cell, the mode's others stand in, and where the declared
    mode has none, the first mode that has; always at the rank that validates best.
    """
    usable = [s for s in scores if not s.cell.is_base and s.complete and s.validation is not None]
    of_mode = [s for s in usable if s.cell.quant == rule.reference_quant]
    declared = [s for s in of_mode if rule.reference_rank in (None, s.cell.rank)]
    stand_in = of_mode or [s for s in usable if s.cell.quant == usable[0].cell.quant]
    chosen = declared or stand_in
    if not chosen:
        return None, False
    best = min(chosen, key=lambda s: (-goodness(s, measure), s.cell.rank, s.cell))
    return best.cell, bool(declared)


def decide(
    study: Study,
    cells: Mapping[Cell, CellData],
    scores: Sequence[CellScore],
    measure: Measure,
) -> Decision:
    """Apply `study.decide` to validation items; the caller adds `Decision.test`."""
    rule, margin = study.decide, margin_of(study.decide, measure)
    reference, is_declared = reference_of(scores, rule, measure)
    by_cell = {score.cell: score for score in scores}
    judged = judged_candidates(study, cells, by_cell, reference, measure, margin)
    tests = {candidate.cell: tested for candidate, tested in judged}
    ordered = sorted(
        (candidate for candidate, _ in judged), key=lambda c: _order(c, by_cell, measure)
    )
    recommended = next((c for c in ordered if _ships(c, reference)), None)
    open_ones = tuple(
        c for c in ordered if recommended and _is_cheaper(c, recommended) and _is_open(c)
    )
    return Decision(
        rule=rule,
        measure=measure,
        margin=margin,
        reference=reference,
        reference_gain=_gain(by_cell, reference, measure),
        reference_is_declared=is_declared,
        candidates=tuple(ordered),
        recommended=recommended.cell if recommended else None,
        trial=_best_trial(by_cell, recommended, measure),
        open=open_ones,
        unknown=tuple(c for c in ordered if recommended and _is_unknown(c, recommended, cells)),
        test=None,
        projection=_projection(tests, recommended, open_ones),
    )


def _gain(
    scores: Mapping[Cell, CellScore], reference: Cell | None, measure: Measure
) -> float | None:
    base = scores.get(base_cell(reference.quant)) if reference else None
    if reference is None or base is None or base.validation is None:
        return None
    return goodness(scores[reference], measure) - goodness(base, measure)


def _ships(candidate: Candidate, reference: Cell | None) -> bool:
    if candidate.ineligible:
        return False
    return candidate.cell == reference or candidate.verdict is Verdict.no_worse


def _is_open(candidate: Candidate) -> bool:
    return candidate.ineligible is None and candidate.verdict is Verdict.undecided


def _is_unknown(
    candidate: Candidate, recommended: Candidate, cells: Mapping[Cell, CellData]
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
    candidate: Candidate, scores: Mapping[Cell, CellScore], measure: Measure
) -> tuple[float, float, Cell]:
    cost = math.inf if candidate.cost is None else candidate.cost
    return cost, -goodness(scores[candidate.cell], measure), candidate.cell


def _best_trial(
    scores: Mapping[Cell, CellScore], recommended: Candidate | None, measure: Measure
) -> str | None:
    """Of the recommended cell, the seed that validates best; ties go to the lowest seed."""
    if recommended is None:
        return None
    sign = 1 if measure is Measure.accuracy else -1
    known = [t for t in scores[recommended.cell].trials if t.validation is not None]
    best = max(known, key=lambda t: (sign * (t.validation or 0.0), -t.seed), default=None)
    return best.trial if best else None


def _projection(
    tested: Mapping[Cell, Tested | None],
    recommended: Candidate | None,
    open_ones: Sequence[Candidate],
) -> Projection | None:
    """For the recommended cell against the reference; where that is one, the cheapest open one."""
    for candidate in [recommended, *open_ones]:
        result = tested.get(candidate.cell) if candidate else None
        if result is not None:
            return project_seeds(result, MORE_SEEDS)
    return None
