"""Every adapter held against the reference on validation items, under the declared rule, and
what more items or more seeds would make of an open one, if its estimate stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lorascope.comparing.cells import CellData, Compared
from lorascope.comparing.estimates import Tested
from lorascope.comparing.forgetting import forgets_too_much
from lorascope.comparing.pairs import (
    SIGNIFICANT,
    Pair,
    common_seeds,
    pairs,
    study_spreads,
    tested_pair,
)
from lorascope.comparing.reference import Reference, best_by_form, far_behind
from lorascope.comparing.results import CellKey, Measure, Pairing, Verdict
from lorascope.comparing.ruling import Candidate, Projection
from lorascope.config import APART, Cost
from lorascope.files.kept import map_kept
from lorascope.records import Study
from lorascope.statistics.accuracy import are_few
from lorascope.statistics.families import choice_factor, counted, holm_hopeful, holm_steps
from lorascope.statistics.power import (
    BOUNDARY_NOISE,
    items_needed,
    items_to_show,
    projected_half_width,
    seeds_needed,
)
from lorascope.statistics.projection import half_width_of_few


def judged_candidates(
    compared: Compared, reference: Reference | None
) -> list[tuple[Candidate, Tested | None]]:
    """Every adapter cell with its test against the reference on validation items.

    The margin test is corrected for the number of cheaper candidates: among many, one would pass
    by luck. 'Worse' is corrected also for the choice of the reference, whose luck with these seeds
    and items makes all others look worse.
    """
    candidates = [
        unjudged(data, compared) for data in compared.cells.values() if not data.cell.base
    ]
    shared = _tested(candidates, compared, reference)
    choice = choice_factor(reference.choices if reference else 1)
    within = [tested.p_margin if tested else None for _, tested in shared]
    beyond = [min(1.0, choice * tested.p_beyond) if tested else None for _, tested in shared]
    judged = zip(shared, holm_hopeful(within), holm_hopeful(beyond), strict=True)
    inner, outer = holm_steps(counted(within)), holm_steps(counted(beyond))
    found = []
    for place, ((candidate, tested), p, worse) in enumerate(judged):
        # What would settle it is the test on whose side of the margin the estimate lies.
        is_beyond = tested is not None and tested.p_beyond < tested.p_margin
        steps = (outer if is_beyond else inner)[place]
        candidate = _with_verdict(candidate, tested, (p, worse), steps, compared)
        level = SIGNIFICANT / (steps * choice if is_beyond else steps)
        found.append((replace(candidate, held_to=held_to(candidate, tested, level)), tested))
    return found


def held_to(candidate: Candidate, tested: Tested | None, level: float) -> float | None:
    """`Candidate.held_to`, where it is judged at `level`, of both sides together."""
    if tested is None or candidate.verdict is not Verdict.undecided:
        return None
    is_told_alone = min(tested.p_margin, tested.p_beyond) < SIGNIFICANT
    return 1 - level if is_told_alone and level > 0 else None


def _tested(
    candidates: Sequence[Candidate], compared: Compared, reference: Reference | None
) -> list[tuple[Candidate, Tested | None]]:
    """Those that are cheaper than the reference held against it; others stay untested."""
    if reference is None:
        return [(candidate, None) for candidate in candidates]
    cells, far = compared.cells, far_behind(compared, reference.cell)
    held = [Pair(Pairing.decision, cells[c.cell], cells[reference.cell]) for c in candidates]
    others = pairs(cells, reference.cell.quant, best_by_form(compared), far)
    trained = [p for p in others if p.pairing is not Pairing.base]
    trained += [p for p in held if p.subject.cell != reference.cell]
    spreads = study_spreads(trained, compared, "validation", far)
    limit = compared.scores[reference.cell].costs.get(compared.study.decide.cost)
    asked = [not c.ineligible and _is_cheaper(c, limit) for c in candidates]
    pairs_asked = [pair for pair, is_asked in zip(held, asked, strict=True) if is_asked]
    raws = iter(map_kept(lambda pair: tested_pair(pair, compared, "validation"), pairs_asked))
    found: list[tuple[Candidate, Tested | None]] = []
    for candidate, pair, is_asked in zip(candidates, held, asked, strict=True):
        raw = next(raws) if is_asked else None
        if raw is not None:
            found.append((candidate, spreads.of(raw, candidate.cell, reference.cell)))
        elif is_asked:
            found.append((replace(candidate, ineligible=_why_not_comparable(pair)), None))
        else:
            found.append((candidate, None))
    return found


def _is_cheaper(candidate: Candidate, limit: float | None) -> bool:
    return limit is not None and candidate.cost is not None and candidate.cost < limit


def unjudged(data: CellData, compared: Compared) -> Candidate:
    """A cell before it is judged."""
    study = compared.study
    cost = compared.scores[data.cell].costs.get(study.decide.cost)
    least = _stored_bytes(data.cell, study) if cost is None else cost
    lacking = _why_not(data)
    found = forgets_too_much(data, compared) if lacking is None else None
    reason, shown = found or (lacking, False)
    return Candidate(data.cell, cost, least, ineligible=reason, forgets=shown)


def _stored_bytes(cell: CellKey, study: Study) -> float | None:
    """What serving an adapter costs at least, its base, where that is the cost; else unknown, as
    for a merged model."""
    if study.decide.cost is not Cost.serving_bytes or cell.serve != APART:
        return None
    return next((f.total_bytes for f in study.footprints if f.quant == cell.quant), None)


def _with_verdict(
    candidate: Candidate,
    tested: Tested | None,
    corrected: tuple[float | None, float | None],
    comparisons: int,
    compared: Compared,
) -> Candidate:
    """`corrected` holds Holm's p for 'within the margin' and for 'worse by more'."""
    within, beyond = corrected
    if tested is None or within is None or beyond is None:
        return candidate
    verdict = Verdict.undecided
    if within < SIGNIFICANT:
        verdict = Verdict.no_worse
    elif beyond < SIGNIFICANT:
        verdict = Verdict.worse
    is_open = verdict is Verdict.undecided
    return replace(
        candidate,
        difference=tested.difference,
        p_margin_holm=within,
        verdict=verdict,
        beyond_margin=tested.p_beyond < tested.p_margin,
        near_margin=is_near(tested, compared),
        items_needed=items_to_settle(tested, compared, comparisons) if is_open else None,
        seeds_needed=seeds_to_settle(tested, compared, comparisons) if is_open else None,
    )


def _why_not(data: CellData) -> str | None:
    lacking = [seed for seed in data.declared if seed.test is None]
    if not lacking:
        return None
    named = ", ".join(f"seed {seed.seed} {seed.status}" for seed in lacking)
    return f"{named} ({lacking[0].reason})" if lacking[0].reason else named


def _why_not_comparable(pair: Pair) -> str:
    if not common_seeds(pair)[0]:
        return "no seed in common with the reference"
    return "fewer than two independent items in common with the reference"


def is_near(tested: Tested, compared: Compared) -> bool:
    """Whether the estimate lies so near the margin that even its side is unknown."""
    gap = abs(tested.difference.value - _limit(compared))
    return gap <= BOUNDARY_NOISE * tested.error


def items_to_settle(tested: Tested, compared: Compared, comparisons: float) -> int | None:
    """Items in all at which the test, corrected for `comparisons`, settles it; None: none would."""
    parts = tested.two_way.components
    seed_variance = max(0.0, tested.two_way.standard_error**2 - parts.items_alone)
    needed = items_needed(
        tested.difference.value,
        _limit(compared),
        math.sqrt(max(0.0, tested.error**2 - seed_variance)),
        tested.difference.items,
        math.sqrt(seed_variance),
        comparisons,
        tested.two_way.degrees,
    )
    if needed is None:
        return None
    # What is open now takes more than there is, whatever the approximation says; and to be shown
    # within the margin, more than no changed answer at all would.
    least = 0
    if compared.measure is Measure.accuracy and tested.p_margin <= tested.p_beyond:
        least = items_to_show(compared.margin, comparisons)
    return max(needed, tested.difference.items + 1, least)


def seeds_to_settle(tested: Tested, compared: Compared, comparisons: float) -> int | None:
    """Seeds in all, likewise; None where unknown, or where no number of seeds would.

    Where the seeds that are there would do by what varies, it is open because few answers differ:
    the floor of that variance falls with items, not with seeds.
    """
    parts = tested.two_way.components
    needed = seeds_needed(tested.difference.value, _limit(compared), parts, comparisons)
    return None if needed is None or needed <= parts.seeds else needed


def project_seeds(tested: Tested, more_seeds: int) -> Projection:
    """The 95 % half width that `more_seeds` further seeds would give."""
    parts = tested.two_way.components
    seeds = parts.seeds + more_seeds
    highest: float | None
    if tested.flips is not None and are_few(tested.two_way, tested.flips):
        changed = (tested.subject_only_right or 0) + (tested.reference_only_right or 0)
        lowest, highest = half_width_of_few(tested.two_way, tested.flips, changed, seeds)
    else:
        lowest, highest = projected_half_width(parts, seeds)
        # Where losses of pairs are tested by resampling, the components say another width.
        now = projected_half_width(parts, parts.seeds)[1]
        scale = max(1.0, tested.half_width / now) if now else 1.0
        lowest, highest = scale * lowest, scale * highest
    return Projection(
        more_seeds=more_seeds,
        half_width=tested.half_width,
        lowest=lowest,
        highest=highest,
        seed_spread_known=parts.item_by_seed is not None,
    )


def _limit(compared: Compared) -> float:
    """The difference at which harm reaches the margin."""
    return -compared.measure.sign * compared.margin
