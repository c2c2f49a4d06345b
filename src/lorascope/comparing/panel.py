"""A study's validation items, joined once: those that choose the reference, those that judge."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lorascope.comparing.cells import (
    Compared,
)
from lorascope.comparing.estimates import (
    JoinedItems,
    join,
)
from lorascope.records import ItemResult

CHOOSING = 4
"""One cluster of validation items in so many chooses the reference, and judges nothing."""


@dataclass(frozen=True)
class Panel:
    """Items scored under many evaluations, joined once."""

    items: JoinedItems
    rows: Mapping[str, int]
    """Name of a trial, or of a bare base's mode -> its evaluation."""

    def of(self, names: Sequence[str]) -> JoinedItems:
        """The evaluations of these, in this order."""
        rows = [self.rows[name] for name in names]
        right = self.items.correct
        return replace(
            self.items,
            correct=None if right is None else right[rows],
            loss_nats=self.items.loss_nats[rows],
        )


def panel_of(compared: Compared, chooses: bool) -> Panel | None:
    """The validation items that choose the reference, or that judge; None where there are none.

    Where the rule names the reference's rank, all judge.
    """
    named = compared.study.decide.reference_rank is not None
    names, tables = [], []
    for data in compared.cells.values():
        for one in data.scored:
            rows = compared.study.items.get(one.evaluation.identity, {}).get("validation", [])
            kept = [item for item in rows if (not named and _chooses(item)) is chooses]
            if kept:
                names.append(one.trial.trial if one.trial else data.cell.quant)
                tables.append(kept)
    joined = join(tables) if tables else None
    return Panel(joined, {name: row for row, name in enumerate(names)}) if joined else None


def _chooses(item: ItemResult) -> bool:
    """By the cluster's name alone, so that more data move no item from one side to the other."""
    name = item.cluster or item.item
    return hashlib.sha256(name.encode()).digest()[0] % CHOOSING == 0
