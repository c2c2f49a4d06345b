"""Which comparisons share their spread between seeds, and what a study's rule declares of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

from lorascope.comparing.estimates import Tested, with_seed_pool
from lorascope.comparing.results import CellKey, Measure
from lorascope.config import APART, DecideConfig
from lorascope.statistics.seed_noise import SeedNoise
from lorascope.statistics.seed_pool import Ends, pool_seeds
from lorascope.statistics.two_way import Components

Forms = frozenset[str]
MEASURED_DEGREES = 4.0
"""Degrees of freedom from which on a spread that the study measured goes before a declared one."""


class Kind(StrEnum):
    """What differs between the two sides of a comparison."""

    mode = "mode"
    """The mode alone: the luck that a seed brings to a rank in all modes cancels."""
    adapter = "adapter"
    """The adapter (rank, alpha, targets, another setting), in one mode or two."""
    form = "form"
    """The served form alone: both sides are one training, merged on one of them, or on both."""
    base = "base"
    """One side has no training, hence no luck."""


@dataclass(frozen=True)
class SeedSpreads:
    """What a study shows of the spread between seeds, and what its rule declares."""

    pools: dict[tuple[Kind, Forms], SeedNoise]
    """By what differs, and where that is the served form, by both forms: rounding to 2 bits tells
    nothing of rounding to 8."""
    declared: float | None
    """Standard deviation of one configuration's score from seed to seed."""
    measure: Measure
    margin: float

    def pool(self, kind: Kind, forms: Forms = frozenset()) -> SeedNoise | None:
        """The spread to reckon with in a comparison of this kind; None: nothing is known."""
        measured = self.pools.get((kind, forms))
        enough = measured is not None and measured.degrees >= MEASURED_DEGREES
        # Of one training in two forms a spread between trainings says nothing.
        if self.declared is None or kind is Kind.form or enough:
            return measured
        sides = 1 if kind is Kind.base else 2
        return SeedNoise(raw=sides * self.declared**2, flicker=0.0, degrees=float("inf"))

    def of(self, tested: Tested, subject: CellKey, reference: CellKey) -> Tested:
        """`tested` with this spread in its interval and tests."""
        return with_seed_pool(
            tested, self.pool(*_pool_of(subject, reference)), self.measure, self.margin
        )


def seed_spreads(
    shown: Iterable[tuple[CellKey, CellKey, Components]],
    far: Collection[CellKey],
    rule: DecideConfig,
    measure: Measure,
    margin: float,
) -> SeedSpreads:
    """From the components of comparisons (subject, reference), those of cells `far` behind left
    out: no row of the grid that is hopeless may make another's verdict."""
    alike: dict[tuple[Kind, Forms], list[tuple[Components, Ends, Ends]]] = {}
    for subject, reference, components in shown:
        if not {subject, reference} & set(far):
            kind = kind_of(subject, reference)
            modes = frozenset((subject.quant, reference.quant))
            partly = modes if kind is Kind.mode else frozenset()
            ends = _ends(kind, subject, reference)
            own = alike.setdefault(_pool_of(subject, reference), [])
            own.append((components, ends, partly))
    pools = {
        name: pool
        for name, members in alike.items()
        if (pool := pool_seeds(*map(list, zip(*members, strict=True))))
    }
    return SeedSpreads(pools, declared_spread(rule, measure), measure, margin)


def declared_spread(rule: DecideConfig, measure: Measure) -> float | None:
    """In the unit of `measure`; None where the rule declares none."""
    if measure is Measure.loss_nats:
        return rule.seed_spread_nats
    return None if rule.seed_spread_points is None else rule.seed_spread_points / 100


def kind_of(subject: CellKey, reference: CellKey) -> Kind:
    """What differs between the two."""
    if reference.base:
        return Kind.base
    if _shape(subject) != _shape(reference):
        return Kind.adapter
    return Kind.mode if subject.quant != reference.quant else Kind.form


def _pool_of(subject: CellKey, reference: CellKey) -> tuple[Kind, Forms]:
    """The comparisons that share a spread with that of the two."""
    kind = kind_of(subject, reference)
    forms = (subject.serve, reference.serve) if kind is Kind.form else ()
    return kind, frozenset(forms)


def _ends(kind: Kind, subject: CellKey, reference: CellKey) -> Ends:
    """What carries the luck: a training where only the mode or the form differs, else the adapter's
    shape, as its luck may be the same in all modes."""
    if kind in (Kind.mode, Kind.form):
        return frozenset((subject.apart, reference.apart))
    if kind is Kind.base:
        return frozenset((_shape(subject),))
    return frozenset((_shape(subject), _shape(reference)))


@cache
def _shape(cell: CellKey) -> CellKey:
    return replace(cell, quant="", serve=APART)
