"""What each look makes of a candidate: its tests, what they are held against, and how it ends.

Parts of the error. Candidates come cheapest first, and the first that is shown to be within the
margin ships. Each gets two thirds of what those before it left of `decide.error`, the last one all
of it. One that lies beyond the margin at its first look takes nothing from the others, for which
all parts are halved. This holds the error: let p be a candidate's part, and let it be as bad as the
margin. It ships with a chance of at most p, and takes its part with one of 1/2; were it worse, the
former falls faster than the latter. So the chance that any such candidate ships is at most the sum
over them of 2 p times the chance that p is taken, and what is taken sums up to at most half of the
error. It is the argument for tests of one side whose p doubled counts
(`statistics.families.holm_hopeful`; Zhao, Small and Su, JASA 114, 2019), for tests in an order
(Tian and Ramdas, SMMR 30, 2021). Assumed: candidates do not come out against each other. They share
the reference, so that what its luck does to one it does to all; independent ones, all as bad as the
margin, come to 4.9 %, ones that correlate by -0.3 to 5.6 %.

Looks. Each part is spent over a candidate's looks by O'Brien and Fleming's type of function
(`statistics.group_sequential`). To drop a candidate costs no quality: there the error is each one's
own. What ends a candidate as out of reach never adds to the error of shipping it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scipy.special import ndtr, ndtri

from lorascope.comparing.cells import Compared
from lorascope.comparing.estimates import Tested
from lorascope.comparing.evidence import Evidence, harm
from lorascope.comparing.reference import FAR_MARGINS, reference_choices
from lorascope.comparing.results import CellKey, Verdict
from lorascope.comparing.seed_spread import seed_spreads
from lorascope.comparing.settling import Look
from lorascope.statistics.error_parts import TAKEN, part_of_error
from lorascope.statistics.families import choice_factor
from lorascope.statistics.group_sequential import bounds
from lorascope.statistics.two_way import Components

LEAST_CHANCE = 0.01
"""Chance of coming to be accepted, below which a candidate gets no further seed."""
LEAST_RISE = 1e-6
"""Share of information by which a look is after another, where no seed brings any."""


@dataclass
class Looks:
    """At the candidates for one reference, in the order in which they are taken."""

    evidence: Evidence
    reference: CellKey
    order: tuple[CellKey, ...]
    taken: list[Look] = field(default_factory=list)

    @property
    def compared(self) -> Compared:
        """The declared cells, with what there is of them."""
        return self.evidence.compared

    def take(self, cell: CellKey, seeds: int) -> Look | None:
        """Another look at a candidate, with so many seeds of it and of the reference.

        None where they share too few items to be compared. One at as many seeds as before is held
        against the same level, with what others have shown since of the spread between seeds.
        """
        raw = self.evidence.difference(cell, self.reference, seeds)
        if raw is None:
            return None
        near, every = self._with_spreads(raw, cell, seeds)
        shares = {one.seeds: one.share for one in self.taken if one.cell == cell}
        last = len(self.compared.cells[cell].declared)
        if seeds not in shares:
            parts = near.two_way.components
            shares[seeds] = _share(parts, seeds, last, max(shares.values(), default=0.0))
        error, spent = self.part(cell), tuple(shares.values())
        level, dropping = (float(ndtr(-bounds(spent, e)[-1])) for e in (error, self._error))
        within = _one_sided(near.p_margin)
        choices = choice_factor(len(reference_choices(self.compared)))
        beyond = min(1.0, choices * _one_sided(every.p_beyond))
        verdict, no_gain = Verdict.undecided, False
        if within < level:
            no_gain = not self.evidence.beats_base(cell, seeds, len(self.order) + 1)
            verdict = Verdict.undecided if no_gain else Verdict.no_worse
        elif beyond < dropping:
            verdict = Verdict.worse
        out = verdict is Verdict.undecided and self._out_of_reach(every, seeds, last, error)
        look = Look(
            cell, near, shares[seeds], error, level, within, beyond, verdict, out, no_gain
        )  # fmt: skip
        self.taken.append(look)
        return look

    @property
    def _error(self) -> float:
        return self.compared.study.decide.error

    def part(self, cell: CellKey) -> float:
        """Of the declared error, what the looks at this candidate may spend."""
        first: dict[CellKey, float] = {}
        for look in self.taken:
            first.setdefault(look.cell, self._behind(look.tested))
        before = self.order[: self.order.index(cell)]
        within = [one for one in before if one in first and first[one] <= self.compared.margin]
        left = (1 - TAKEN) ** len(within)
        is_last = cell == self.order[-1]
        return part_of_error(self._error, len(self.order), left, is_last=is_last)

    def _behind(self, tested: Tested) -> float:
        return harm(tested.difference, self.evidence.measure)

    def _is_far(self, behind: float) -> bool:
        return behind > FAR_MARGINS * self.compared.margin

    def _with_spreads(self, raw: Tested, cell: CellKey, seeds: int) -> tuple[Tested, Tested]:
        """With the spread between seeds of what is not far behind, and with that of all.

        How much the seeds of a hopeless one differ says nothing of others. What is shown to be
        worse ships nothing: there all count.
        """
        known = {look.cell: look.seeds for look in self.taken} | {cell: seeds}
        last = {look.cell: self._behind(look.tested) for look in self.taken}
        far = [one for one, behind in last.items() if self._is_far(behind)]
        shown = self.evidence.components_between(known, self.reference)
        rule = self.compared.study.decide
        near, every = (
            seed_spreads(shown, left_out, rule, self.evidence.measure, self.compared.margin)
            for left_out in (far, ())
        )
        return near.of(raw, cell, self.reference), every.of(raw, cell, self.reference)

    def _out_of_reach(self, tested: Tested, seeds: int, last: int, error: float) -> bool:
        """Whether no look at further seeds is likely to accept it: it lies far behind, or by what
        is known of the spread between seeds moves far enough with a chance below `LEAST_CHANCE`.

        This is a predictive probability (Spiegelhalter, Freedman and Blackburn, Controlled Clinical
        Trials 7, 1986) with a flat prior: the mean over all seeds is as t around the present one.
        """
        behind, noise = self._behind(tested), tested.two_way.noise
        if seeds == last:
            return False
        if self._is_far(behind):
            return True
        if noise is None:
            return False
        item = tested.two_way.components.item or 0.0
        reach = float(-ndtri(error)) * math.sqrt(item + noise.raw / last)
        return noise.moves(behind + reach - self.compared.margin, seeds, last) < LEAST_CHANCE


def _share(parts: Components, now: int, last: int, before: float) -> float:
    """Information of `now` seeds over that of `last`, above what the look `before` had."""
    if now == last:
        return 1.0
    item, luck = parts.item or 0.0, (parts.item_by_seed or 0.0) + (parts.seed or 0.0)
    share = now / last
    if item + luck > 0:
        share = (item + luck / last) / (item + luck / now)
    return min(max(share, before + LEAST_RISE), 1.0 - LEAST_RISE * (last - now))


def _one_sided(doubled: float) -> float:
    """Of a one-sided p value that was doubled, and cut at 1."""
    return doubled / 2 if doubled < 1 else 1.0
