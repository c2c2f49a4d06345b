"""What training on one thing cost in another: the loss on rows of the base's own domain, before and
after."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lorascope.comparing.cells import CellData, Compared, base_cell, join_scored
from lorascope.comparing.estimates import cell_estimate
from lorascope.comparing.pairs import Pair, tested_pair
from lorascope.comparing.results import CellKey, Estimate, Measure, Pairing
from lorascope.files.layout import FORGETTING


@dataclass(frozen=True)
class Forgetting:
    """Of one configuration, in nats a completion token."""

    cell: CellKey
    before_nats: float
    """Loss of the bare base of its mode."""
    after_nats: float
    """Mean over its seeds."""
    difference: Estimate
    """After minus before; above zero where something was forgotten. The interval is over items and,
    where there are several, seeds."""


def forgetting(compared: Compared) -> tuple[Forgetting, ...]:
    """Of every configuration that is scored on such rows, as its bare base is."""
    found = (forgotten(data, compared) for data in compared.cells.values() if not data.cell.base)
    return tuple(own for own in found if own is not None)


def forgotten(data: CellData, compared: Compared) -> Forgetting | None:
    """The same of one configuration; None where it, or its bare base, has no such score."""
    base = compared.cells.get(base_cell(data.cell.quant))
    if base is None or not base.scored or not data.scored:
        return None
    by_loss = replace(compared, measure=Measure.loss_nats)
    tested = tested_pair(Pair(Pairing.base, data, base), by_loss, FORGETTING)
    joined = join_scored(base.scored, compared.study, FORGETTING)
    before = cell_estimate(joined, Measure.loss_nats) if joined else None
    if tested is None or before is None:
        return None
    after = before.value + tested.difference.value
    return Forgetting(data.cell, before.value, after, tested.difference)


def forgets_too_much(data: CellData, compared: Compared) -> tuple[str, bool] | None:
    """Why a configuration does not ship under `decide.max_forgetting_nats`, and whether that is
    shown; None where it may.

    It has to be shown to forget no more: the upper end of the interval lies within the limit.
    """
    limit = compared.study.decide.max_forgetting_nats
    if limit is None:
        return None
    own = forgotten(data, compared)
    if own is None:
        return "what it forgets is unknown", False
    ends = own.difference.ends
    if ends[1] <= limit:
        return None
    shown = ends[0] > limit
    verb = "forgets" if shown else "may forget"
    return f"{verb} more than {limit:g} nats ({ends[0]:+.3f} to {ends[1]:+.3f})", shown
