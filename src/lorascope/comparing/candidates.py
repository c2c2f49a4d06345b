"""Every adapter held against the reference on validation items, under the declared rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lorascope.comparing.cells import CellData
from lorascope.comparing.costs import value_of
from lorascope.comparing.estimates import Tested, with_shared_seed_spread
from lorascope.comparing.pairs import SIGNIFICANT, Pair, common_seeds, tested_pair
from lorascope.comparing.prospects import is_near, items_to_settle, seeds_to_settle
from lorascope.comparing.results import Cell, CellScore, Measure, Pairing, Verdict
from lorascope.comparing.ruling import Candidate
from lorascope.config import Cost
from lorascope.maths.families import holm, holm_steps
from lorascope.records import Study


def judged_candidates(
    study: Study,
    cells: Mapping[Cell, CellData],
    scores: Mapping[Cell, CellScore],
    reference: Cell | None,
    measure: Measure,
    margin: float,
) -> list[tuple[Candidate, Tested | None]]:
    """Every adapter cell with its test against the reference on validation items.

    The margin test is corrected for the number of cheaper candidates: among many, one would pass
    by luck.
    """
    candidates = [
        _candidate(data, scores[data.cell], study)
        for data in cells.values()
        if not data.cell.is_base
    ]
    limit = value_of(scores[reference].cost, study.decide.cost) if reference else None
    raw: list[Tested | None] = []
    for place, candidate in enumerate(candidates):
        cheaper = limit is not None and candidate.cost is not None and candidate.cost < limit
        tested = None
        if reference and cheaper and not candidate.ineligible:
            pair = Pair(Pairing.mode, cells[candidate.cell], cells[reference])
            tested = tested_pair(pair, study, "validation", measure, margin)
            if tested is None:
                candidates[place] = replace(candidate, ineligible=_why_not_comparable(pair))
        raw.append(tested)
    shared = with_shared_seed_spread(raw, [reference] * len(raw), measure, margin)
    within = [tested.p_margin if tested else None for tested in shared]
    beyond = [tested.p_beyond if tested else None for tested in shared]
    judged = zip(candidates, shared, holm(within), holm(beyond), strict=True)
    found = []
    for place, (candidate, tested, p, worse) in enumerate(judged):
        # What would settle it is the test on whose side of the margin the estimate lies.
        nearer = beyond if tested and tested.p_beyond < tested.p_margin else within
        steps = holm_steps(nearer, place)
        found.append((_with_verdict(candidate, tested, (p, worse), steps, measure, margin), tested))
    return found


def _candidate(data: CellData, score: CellScore, study: Study) -> Candidate:
    """A cell before it is judged."""
    cost = value_of(score.cost, study.decide.cost)
    return Candidate(
        cell=data.cell,
        cost=cost,
        least_cost=_stored_bytes(data.cell, study) if cost is None else cost,
        difference=None,
        p_margin_holm=None,
        verdict=None,
        beyond_margin=False,
        near_margin=False,
        ineligible=_why_not(data),
        items_needed=None,
        seeds_needed=None,
    )


def _stored_bytes(cell: Cell, study: Study) -> float | None:
    """What serving an adapter costs at least, its base, where that is the cost; else unknown."""
    if study.decide.cost is not Cost.serving_bytes:
        return None
    return next((f.total_bytes for f in study.footprints if f.quant == cell.quant), None)


def _with_verdict(
    candidate: Candidate,
    tested: Tested | None,
    corrected: tuple[float | None, float | None],
    comparisons: int,
    measure: Measure,
    margin: float,
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
        near_margin=is_near(tested, measure, margin),
        items_needed=items_to_settle(tested, measure, margin, comparisons) if is_open else None,
        seeds_needed=seeds_to_settle(tested, measure, margin, comparisons) if is_open else None,
    )


def _why_not(data: CellData) -> str | None:
    """Why a cell cannot ship: some declared seed has no score."""
    lacking = [seed for seed in data.declared if seed.test is None]
    if not lacking:
        return None
    named = ", ".join(f"seed {seed.seed} {seed.status}" for seed in lacking)
    return f"{named} ({lacking[0].reason})" if lacking[0].reason else named


def _why_not_comparable(pair: Pair) -> str:
    """Why a scored cell cannot be held against the reference."""
    if not common_seeds(pair)[0]:
        return "no seed in common with the reference"
    return "fewer than two independent items in common with the reference"
