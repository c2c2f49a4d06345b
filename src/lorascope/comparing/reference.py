"""Which adapter the others are held against, and which are so far behind that they say nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lorascope.comparing.cells import Compared
from lorascope.comparing.results import CellKey, CellScore, Measure
from lorascope.config import APART, Cost
from lorascope.records import Study

FAR_MARGINS = 2.0
"""A cell worse than the reference by more margins than this is no candidate: how much its seeds
vary says nothing of those that are."""


@dataclass(frozen=True)
class Reference:
    """The cell that the rule holds the others against."""

    cell: CellKey
    is_declared: bool
    """The rule names its mode, and its rank where it names one."""
    choices: int
    """Cells that it is the best of, on the seeds and items on which the others are then held
    against it: it carries the luck of the best of so many."""


def goodness(score: CellScore, measure: Measure) -> float:
    """Validation score for sorting, more is better; the unscored come last."""
    if score.validation is None:
        return -math.inf
    return measure.sign * score.validation.value


Form = tuple[str, str]
"""A mode that is trained on, and the form that is scored."""


def form_of(cell: CellKey) -> Form:
    """The mode and the form of a configuration."""
    return cell.quant, cell.serve


def best_by_form(compared: Compared) -> dict[Form, CellKey]:
    """The adapter of each mode and served form that validates best; ties go to the one of fewer
    bytes.

    One with a seed missing is taken only where a mode has no other.
    """
    best: dict[Form, CellKey] = {}

    def order(score: CellScore) -> tuple[bool, float, float, CellKey]:
        return not score.complete, *_preference(score, compared.measure)

    for score in sorted(compared.scores.values(), key=order):
        if not score.cell.base and score.validation is not None:
            best.setdefault(form_of(score.cell), score.cell)
    return best


def _preference(score: CellScore, measure: Measure) -> tuple[float, float, CellKey]:
    """For sorting, best first: by validation score, then by the adapter's bytes."""
    size = score.costs.get(Cost.adapter_bytes, math.inf)
    return -goodness(score, measure), size, score.cell


def reference_of(compared: Compared) -> Reference | None:
    """The reference; None where nothing is complete.

    Where the declared rank has no complete cell, the mode's others stand in, and where the declared
    mode has none, the first mode that has; always at the rank that validates best. Adapters apart
    on their base go before what is merged.
    """
    rule, measure = compared.study.decide, compared.measure
    adapters = [s for s in compared.scores.values() if not s.cell.base]
    scored = [s for s in adapters if s.complete and s.validation is not None]
    usable = [s for s in scored if s.cell.serve == APART] or scored
    of_mode = [s for s in usable if s.cell.quant == rule.reference_quant]
    declared = [s for s in of_mode if rule.reference_rank in (None, s.cell.dial("rank"))]
    stand_in = of_mode or [s for s in usable if s.cell.quant == usable[0].cell.quant]
    chosen = declared or stand_in
    if not chosen:
        return None
    best = min(chosen, key=lambda score: _preference(score, measure))
    return Reference(best.cell, bool(declared), near_best(chosen, best.cell, compared))


def near_best(scores: Iterable[CellScore], best: CellKey, compared: Compared) -> int:
    """Adapters of the mode and form of `best` that luck might have put in its place, itself among
    them."""
    of_mode = [s for s in scores if form_of(s.cell) == form_of(best) and not s.cell.base]
    usable = [s for s in of_mode if s.complete and s.validation is not None]
    return sum(not _is_far(s, best, compared) for s in usable)


def far_behind(compared: Compared, reference: CellKey | None) -> frozenset[CellKey]:
    """Adapters worse than the reference by more than `FAR_MARGINS` margins on validation items."""
    if reference is None:
        return frozenset()
    adapters = [s for s in compared.scores.values() if not s.cell.base and s.validation]
    return frozenset(s.cell for s in adapters if _is_far(s, reference, compared))


def _is_far(score: CellScore, reference: CellKey, compared: Compared) -> bool:
    held = goodness(compared.scores[reference], compared.measure)
    return held - goodness(score, compared.measure) > FAR_MARGINS * compared.margin


def reference_choices(compared: Compared) -> list[CellKey]:
    """The declared cells of which one becomes the reference; as `reference_of`, of the first mode
    where the declared one is not there."""
    rule = compared.study.decide
    cells = [cell for cell in compared.cells if not cell.base]
    of_mode = [cell for cell in cells if cell.quant == rule.reference_quant]
    named = [cell for cell in of_mode if rule.reference_rank in (None, cell.dial("rank"))]
    return named or of_mode or [cell for cell in cells if cell.quant == cells[0].quant]


def best_base(
    quant: str, study: Study, goodness_of: Mapping[str, float], served_bytes: float = 0.0
) -> str | None:
    """The mode whose bare base scores best among those of no more bytes than `quant`, or than what
    is served; among equals its own.

    `goodness_of` holds the modes whose base has a score. A merged model of fewer bytes is held
    against what its own mode allows all the same: none of the study's bases may be so small.
    """
    stored = {footprint.quant: footprint.total_bytes for footprint in study.footprints}
    limit = max(stored.get(quant, -1), served_bytes)
    usable = [one for one, size in stored.items() if size <= limit and one in goodness_of]
    return max(usable, key=lambda one: (goodness_of[one], one == quant), default=None)
