"""The declared rule's answer: the cheapest configuration that is no worse than the reference, and
that is shown to beat the bare base.

Everything here is judged on validation items; test items only report what was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lorascope.comparing.candidates import judged_candidates, project_seeds
from lorascope.comparing.cells import (
    CellData,
    Compared,
    base_cell,
    items_key,
    join_scored,
    never_served,
)
from lorascope.comparing.course import settle
from lorascope.comparing.estimates import Tested, cell_estimate, compare_with_base
from lorascope.comparing.evidence import items_of
from lorascope.comparing.pairs import SIGNIFICANT
from lorascope.comparing.reference import best_base, goodness, reference_of
from lorascope.comparing.results import CellKey, Estimate, Measure, Verdict
from lorascope.comparing.ruling import (
    Candidate,
    Decision,
    FreshScore,
    Gain,
    Projection,
    SettleItems,
)
from lorascope.comparing.settled_candidates import (
    NOT_YET,
    settled_candidates,
    settled_reference,
)
from lorascope.config import APART, Cost, Search
from lorascope.files.kept import kept
from lorascope.records import Status
from lorascope.statistics.error_parts import items_to_settle
from lorascope.statistics.families import holm

MORE_SEEDS = 3
"""What the report says further seeds would buy."""


def decide(compared: Compared) -> Decision:
    """Apply `study.decide` to validation items; the caller adds `Decision.test`."""
    settling = settle(compared) if compared.study.search is Search.settle else None
    if settling is not None:
        held, judged = settled_reference(settling, compared), settled_candidates(settling, compared)
    else:
        held = reference_of(compared)
        judged = judged_candidates(compared, held)
    reference = held.cell if held else None
    tests = {candidate.cell: tested for candidate, tested in judged}
    ordered = sorted((candidate for candidate, _ in judged), key=lambda c: _order(c, compared))
    gained = gains(compared)
    if settling is not None:
        chosen = settling.accepted or (reference if settling.wanted else None)
        recommended = next((c for c in ordered if c.cell == chosen), None)
    else:
        needless = {gain.cell for gain in gained if not gain.shown}
        passed = (c for c in ordered if _ships(c, reference) and c.cell not in needless)
        recommended = next(passed, None)
    open_ones = tuple(c for c in ordered if _is_cheaper(c, recommended) and _is_open(c))
    return Decision(
        rule=compared.study.decide,
        measure=compared.measure,
        margin=compared.margin,
        reference=reference,
        reference_gain=_gain(reference, compared),
        gains=gained,
        reference_is_declared=held is not None and held.is_declared,
        candidates=tuple(ordered),
        recommended=recommended.cell if recommended else None,
        trial=_best_trial(recommended, compared),
        open=open_ones,
        unknown=tuple(c for c in ordered if _is_unknown(c, recommended, compared)),
        test=None,
        projection=_projection(tests, recommended, open_ones),
        seeds=_seeds(ordered, recommended, compared),
        settling=settling,
        settle_items=_settle_items(ordered, reference, compared),
        declared=len({t.trial for data in compared.cells.values() for t in data.declared}),
    )


def _seeds(
    candidates: Sequence[Candidate], recommended: Candidate | None, compared: Compared
) -> int:
    """The fewest seeds that the answer rests on; 0 without one."""
    if recommended is None:
        return 0
    own = compared.scores[recommended.cell].validation
    judged = [
        candidate.difference.seeds
        for candidate in candidates
        if candidate.difference is not None
        and (candidate.cell == recommended.cell or _is_cheaper(candidate, recommended))
    ]
    return min([own.seeds if own else 0, *judged])


def _settle_items(
    candidates: Sequence[Candidate], reference: CellKey | None, compared: Compared
) -> SettleItems | None:
    """What `search=settle` would judge on, as if these were its candidates."""
    held = next((one for one in candidates if one.cell == reference), None)
    cheaper = sum(_is_cheaper(one, held) for one in candidates)
    if reference is None or not cheaper or compared.measure is not Measure.accuracy:
        return None
    least = items_to_settle(compared.margin, compared.study.decide.error, cheaper)
    return SettleItems(*items_of(compared, reference), least)


def _gain(reference: CellKey | None, compared: Compared) -> float | None:
    scores, measure = compared.scores, compared.measure
    base = scores.get(base_cell(reference.quant)) if reference else None
    if reference is None or base is None or base.validation is None:
        return None
    return goodness(scores[reference], measure) - goodness(base, measure)


def _ships(candidate: Candidate, reference: CellKey | None) -> bool:
    passes = candidate.cell == reference or candidate.verdict is Verdict.no_worse
    return passes and not candidate.ineligible


def _is_open(candidate: Candidate) -> bool:
    return candidate.ineligible is None and candidate.verdict is Verdict.undecided


def _is_unknown(candidate: Candidate, recommended: Candidate | None, compared: Compared) -> bool:
    """Not judged, and not known to cost more; a training that diverged is known not to
    ship, and so is what cannot be merged."""
    if recommended is None or candidate.verdict or candidate.cell == recommended.cell:
        return False
    if compared.study.search is Search.settle:
        return candidate.ineligible == NOT_YET
    if any(s.status == Status.diverged for s in compared.cells[candidate.cell].declared):
        return False
    if never_served(candidate.cell) or candidate.forgets:
        return False
    least = candidate.least_cost
    return least is None or recommended.cost is None or least < recommended.cost


def _is_cheaper(candidate: Candidate, than: Candidate | None) -> bool:
    if than is None or candidate.cost is None or than.cost is None:
        return False
    return candidate.cost < than.cost


def _order(candidate: Candidate, compared: Compared) -> tuple[float, float, CellKey]:
    cost = math.inf if candidate.cost is None else candidate.cost
    return cost, -goodness(compared.scores[candidate.cell], compared.measure), candidate.cell


def _best_trial(recommended: Candidate | None, compared: Compared) -> str | None:
    """Of the recommended cell, the seed that validates best; ties go to the lowest seed."""
    if recommended is None:
        return None
    known = [t for t in compared.scores[recommended.cell].trials if t.validation is not None]
    sign = compared.measure.sign
    best = max(known, key=lambda t: (sign * (t.validation or 0.0), -t.seed), default=None)
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


def fresh_score(compared: Compared) -> FreshScore | None:
    """What the rule's choice scores on test items with seeds that had no part in the choice.

    A configuration that was chosen as the best by its seeds carries their luck into any test items,
    however fresh. So the rule is applied again without each seed in turn, and what it then chooses
    is scored with the seed that was left out (leave-one-out, of the choice and not only of the
    score). With few seeds it may choose another configuration than all of them do, which the page
    names. None with one seed, or where a choice without some seed has no score.
    """
    study, cells = compared.study, compared.cells
    seeds = sorted({trial.seed for data in cells.values() for trial in data.declared})
    if len(seeds) < 2:
        return None
    chosen = [_chosen_without(seed, compared) for seed in seeds]
    scored = [
        one
        for seed, cell in zip(seeds, chosen, strict=True)
        for one in (cells[cell].scored if cell else ())
        if one.seed == seed
    ]
    joined = join_scored(scored, study, "test") if len(scored) == len(seeds) else None
    estimate = cell_estimate(joined, compared.measure) if joined else None
    if estimate is None:
        return None
    return FreshScore(estimate, tuple(cell for cell in chosen if cell))


def _chosen_without(seed: int, compared: Compared) -> CellKey | None:
    """What the rule recommends from the other seeds."""
    left = {
        cell: replace(
            data,
            scored=tuple(one for one in data.scored if one.seed != seed),
            declared=tuple(trial for trial in data.declared if trial.seed != seed),
        )
        for cell, data in compared.cells.items()
    }
    return decide(Compared.of(compared.study, compared.measure, left)).recommended


def gains(compared: Compared) -> tuple[Gain, ...]:
    """Every scored adapter against the best bare base that takes no more bytes than its own.

    A smaller base that does as well makes an adapter as needless as its own base does. Corrected
    for the number of adapters (Holm): among many that learnt nothing, one would seem to have. An
    adapter that has no such base with a score is left out.
    """
    trained = [data for data in compared.cells.values() if not data.cell.base and data.scored]
    found = [gain for data in trained if (gain := _gain_of(data, compared))]
    corrected = holm([gain.p_holm for gain in found])
    sign = compared.measure.sign
    return tuple(
        replace(gain, p_holm=p, shown=p < SIGNIFICANT and sign * gain.difference.value > 0)
        for gain, p in zip(found, corrected, strict=True)
        if p is not None
    )


def _gain_of(data: CellData, compared: Compared) -> Gain | None:
    """With an uncorrected p, and nothing shown yet."""
    base = _base_of(data.cell, compared)
    if base is None:
        return None
    scored = [*data.scored, *compared.cells[base].scored]

    def made() -> tuple[Estimate, float] | None:
        joined = join_scored(scored, compared.study, "validation")
        return compare_with_base(joined, compared.measure) if joined else None

    tested = kept(items_key(("gain", compared.measure), scored, compared.study, "validation"), made)
    if tested is None:
        return None
    return Gain(data.cell, base, tested[0], p_holm=tested[1], shown=False)


def _base_of(cell: CellKey, compared: Compared) -> CellKey | None:
    """The bare base that validates best among those of its mode's bytes or fewer."""
    scored = {
        base.quant: goodness(score, compared.measure)
        for base, score in compared.scores.items()
        if base.base and score.validation
    }
    served = 0.0
    if cell.serve != APART:
        served = compared.scores[cell].costs.get(Cost.serving_bytes, 0.0)
    found = best_base(cell.quant, compared.study, scored, served)
    return None if found is None else base_cell(found)
