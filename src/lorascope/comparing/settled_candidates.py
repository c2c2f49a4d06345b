"""The candidates of a settling as the declared rule's: their last look, or why there is none."""

from __future__ import annotations

from dataclasses import replace

from lorascope.comparing.candidates import (
    held_to,
    is_near,
    items_to_settle,
    seeds_to_settle,
    unjudged,
)
from lorascope.comparing.cells import NOT_NEEDED, CellData, Compared
from lorascope.comparing.estimates import Tested
from lorascope.comparing.pairs import SIGNIFICANT
from lorascope.comparing.reference import Reference, reference_choices
from lorascope.comparing.results import Verdict
from lorascope.comparing.ruling import Candidate
from lorascope.comparing.settling import Look, Settling
from lorascope.statistics.families import choice_factor

NOT_YET = "not trained yet"


def settled_reference(settling: Settling, compared: Compared) -> Reference | None:
    """What the candidates were held against; None as long as nothing of it is scored."""
    cell = settling.reference
    if cell is None or not compared.cells[cell].scored:
        return None
    rule, choices = compared.study.decide, len(reference_choices(compared))
    declared = cell.quant == rule.reference_quant
    declared = declared and rule.reference_rank in (None, cell.dial("rank"))
    return Reference(cell, declared, choices)


def settled_candidates(
    settling: Settling, compared: Compared
) -> list[tuple[Candidate, Tested | None]]:
    """Every adapter cell; those that were looked at with their last look's test."""
    found = []
    for data in compared.cells.values():
        if data.cell.base:
            continue
        candidate = replace(unjudged(data, compared), ineligible=_why_not(data, settling))
        look = settling.last_look(data.cell)
        if look is not None:
            candidate = _looked_at(candidate, look, compared)
        found.append((candidate, look.tested if look else None))
    return found


def _why_not(data: CellData, settling: Settling) -> str | None:
    cell = data.cell
    if cell in settling.refused:
        return settling.refused[cell]
    if cell == settling.reference or settling.last_look(cell) is not None:
        return None
    if cell in settling.order and settling.wanted:
        return NOT_YET
    # Of the reference's mode each was scored once, to choose among them.
    return "not looked at" if data.scored else NOT_NEEDED


def _level_to_settle(look: Look, compared: Compared) -> float:
    """One-sided, at all seeds: to be accepted, or to be dropped where it lies beyond the margin."""
    if look.tested.p_beyond < look.tested.p_margin:
        choices = len(reference_choices(compared))
        return compared.study.decide.error / choice_factor(choices)
    return look.error


def _looked_at(candidate: Candidate, look: Look, compared: Compared) -> Candidate:
    tested = look.tested
    many = SIGNIFICANT / 2 / _level_to_settle(look, compared)
    is_open = look.verdict is Verdict.undecided and not (look.out_of_reach or look.no_gain)
    judged = replace(
        candidate,
        difference=tested.difference,
        # In the place of Holm's: below 5 % where the look's bound is crossed.
        p_margin_holm=min(1.0, SIGNIFICANT * look.p_within / look.level) if look.level else 1.0,
        verdict=None if look.out_of_reach else look.verdict,
        beyond_margin=tested.p_beyond < tested.p_margin,
        near_margin=is_near(tested, compared),
        items_needed=items_to_settle(tested, compared, many) if is_open else None,
        seeds_needed=seeds_to_settle(tested, compared, many) if is_open else None,
    )
    may_ship = is_open and not judged.beyond_margin
    return replace(judged, held_to=held_to(judged, tested, 2 * look.level) if may_ship else None)
