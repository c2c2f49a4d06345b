"""Whether adapters learnt anything: each held against the bare base, on validation items.

The question is about the adapters in hand, whose seeds are what they are: the test is over items
alone. What another training would gain is left to the comparisons over seeds.
"""

from __future__ import annotations

from dataclasses import replace

from lorascope.comparing.cells import CellData, Compared, base_cell, join_scored
from lorascope.comparing.estimates import compare_with_base
from lorascope.comparing.pairs import SIGNIFICANT
from lorascope.comparing.reference import goodness
from lorascope.comparing.results import CellKey
from lorascope.comparing.ruling import Gain
from lorascope.statistics.families import holm


def gains(compared: Compared) -> tuple[Gain, ...]:
    """Every scored adapter against the best bare base that takes no more bytes than its own.

    A smaller base that does as well makes an adapter as needless as its own base does. Corrected
    for the number of adapters (Holm): among many that learnt nothing, one would seem to have. An
    adapter that has no such base with a score is left out.
    """
    found = [
        gain
        for data in compared.cells.values()
        if not data.cell.base and data.scored
        if (gain := _gain(data, compared))
    ]
    corrected = holm([gain.p_holm for gain in found])
    sign = compared.measure.sign
    return tuple(
        replace(gain, p_holm=p, shown=p < SIGNIFICANT and sign * gain.difference.value > 0)
        for gain, p in zip(found, corrected, strict=True)
        if p is not None
    )


def _gain(data: CellData, compared: Compared) -> Gain | None:
    """With an uncorrected p, and nothing shown yet."""
    base = _base_of(data.cell, compared)
    if base is None:
        return None
    scored = [*data.scored, *compared.cells[base].scored]
    joined = join_scored(scored, compared.study, "validation")
    tested = compare_with_base(joined, compared.measure) if joined else None
    if tested is None:
        return None
    return Gain(data.cell, base, tested[0], p_holm=tested[1], shown=False)


def _base_of(cell: CellKey, compared: Compared) -> CellKey | None:
    """The bare base that validates best among those of its mode's bytes or fewer."""
    stored = {footprint.quant: footprint.total_bytes for footprint in compared.study.footprints}
    scores, measure = compared.scores, compared.measure
    limit = stored.get(cell.quant)
    usable = [
        base_cell(quant)
        for quant, size in stored.items()
        if limit is not None and size <= limit and scores[base_cell(quant)].validation
    ]
    own = base_cell(cell.quant)
    # Among equals its own.
    order = {base: (goodness(scores[base], measure), base == own) for base in usable}
    return max(usable, key=lambda base: order[base], default=None)
