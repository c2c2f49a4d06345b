"""Which trials the answer needs, in the order in which they are needed: cheapest first.

The course of a settling is replayed from records alone. It asks for trials, looks at a candidate
once its seeds are scored, and goes on; where it asks for something that is not there it ends, and
says what is wanted next. So it is the same live, after a kill, and on a full grid, of which it uses
those trials that it would have asked for.

A candidate is looked at with two seeds, then with each further one. It is accepted when it is shown
to be within the margin and to beat the bare base; dropped when it is shown to be worse than the
margin allows, or when no look could accept it any more, were all further seeds as good as the
reference; and undecided when its seeds end. The declared error is divided by the number of
candidates (Bonferroni), and each one's part is spent over its looks (O'Brien and Fleming's type,
`statistics.group_sequential`). So the chance to ship one that is worse than the margin allows is at
most the declared error, however many are looked at and however often. To drop one costs no quality:
there the error is each candidate's own, not divided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.stats import norm

from lorascope.comparing.cells import (
    MISSING,
    NO_EVALUATION,
    NOT_NEEDED,
    Compared,
    declared_cost,
)
from lorascope.comparing.estimates import (
    cell_estimate,
)
from lorascope.comparing.evidence import Evidence, Panel, harm, panel_of
from lorascope.comparing.reference import FAR_MARGINS, reference_choices
from lorascope.comparing.results import CellKey, Measure, Verdict
from lorascope.comparing.seed_spread import seed_spreads
from lorascope.comparing.settling import Look, Settling
from lorascope.records import LASTING, Status
from lorascope.statistics.families import choice_factor
from lorascope.statistics.group_sequential import bounds
from lorascope.statistics.two_way import Components

FIRST_LOOK = 2
"""Seeds before the first look: one says nothing of others."""
PASSING = frozenset(status.value for status in Status if status not in LASTING)
"""What ended a training, such as an interruption, and may not end the next one."""
OUT_OF_REACH = "out of reach, were further seeds as good as the reference"
LEAST_RISE = 1e-6
"""Share of information by which a look is after another, where no seed brings any."""


class _Wanting(Exception):
    """Trials are asked for that are not there."""

    def __init__(self, trials: Sequence[str]) -> None:
        super().__init__(*trials)
        self.trials = tuple(trials)


def settle(compared: Compared) -> Settling:
    """Replay the course of a settling over what is there of `compared`'s declared cells."""
    evidence = Evidence(compared, panel_of(compared, chooses=False))
    return Course(evidence, panel_of(compared, chooses=True)).run()


@dataclass
class Course:
    """One replay."""

    evidence: Evidence
    choosing: Panel | None
    used: dict[str, None] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    refused: dict[CellKey, str] = field(default_factory=dict)

    @property
    def compared(self) -> Compared:
        """The declared cells, with what there is of them."""
        return self.evidence.compared

    def run(self) -> Settling:
        """How far it comes."""
        reference: CellKey | None = None
        order: tuple[CellKey, ...] = ()
        accepted: CellKey | None = None
        wanted: tuple[str, ...] = ()
        try:
            reference = self.choose_reference()
            order = self.candidates(reference) if reference else ()
            accepted = self._accepted(reference, order) if reference else None
        except _Wanting as stop:
            wanted = stop.trials
        return Settling(
            reference, order, tuple(self.looks), self.refused, frozenset(self.used), wanted,
            accepted,
        )  # fmt: skip

    def choose_reference(self) -> CellKey | None:
        """The named one, else the best of its mode by its first seed, on the choosing items."""
        choices = reference_choices(self.compared)
        if len(choices) == 1:
            return choices[0]
        scores = {}
        for cell, trials in self._ask(dict.fromkeys(choices, 1)).items():
            if self.choosing and trials[0] in self.choosing.rows:
                estimate = cell_estimate(self.choosing.of(trials), self.measure)
                if estimate is not None:
                    scores[cell] = (
                        -harm(estimate, self.measure),
                        -declared_cost(cell, self.compared),
                    )
        return max(scores, key=lambda cell: scores[cell], default=None)

    @property
    def measure(self) -> Measure:
        """Of the study."""
        return self.compared.measure

    def candidates(self, reference: CellKey) -> tuple[CellKey, ...]:
        limit = declared_cost(reference, self.compared)
        cells = [cell for cell in self.compared.cells if not cell.base]
        cheaper = [cell for cell in cells if declared_cost(cell, self.compared) < limit]
        return tuple(sorted(cheaper, key=lambda cell: (declared_cost(cell, self.compared), cell)))

    def _accepted(self, reference: CellKey, order: Sequence[CellKey]) -> CellKey | None:
        """The cheapest candidate that passes; the reference where none does."""
        passed, open_ones = None, []
        for cell in order:
            verdict = self._verdict(cell, reference, len(order))
            if verdict is Verdict.no_worse:
                passed = cell
                break
            if verdict is Verdict.undecided:
                open_ones.append(cell)
        for cell in open_ones:
            # Its seeds have ended; what later ones show of the spread between seeds may settle it.
            if self._judged(cell, reference, len(order)) is Verdict.no_worse:
                return cell
        if passed is not None:
            return passed
        if reference not in self._ask({reference: FIRST_LOOK}):
            return None
        return (
            reference if self.evidence.beats_base(reference, FIRST_LOOK, len(order) + 1) else None
        )

    def _verdict(self, cell: CellKey, reference: CellKey, candidates: int) -> Verdict | None:
        """Of the looks at a candidate until one decides, or its seeds end; None: refused."""
        last = self._last(cell, reference)
        if last < FIRST_LOOK:
            self.refused[cell] = "fewer than two declared seeds in common with the reference"
            return None
        for seeds in range(FIRST_LOOK, last + 1):
            scored = self._ask({cell: seeds, reference: seeds})
            if len(scored) < len({cell, reference}):
                self.refused[cell] = self._failure(reference if cell in scored else cell)
                return None
            verdict = self._judged(cell, reference, candidates, seeds)
            if verdict is not Verdict.undecided:
                return verdict
        if self.looks[-1].verdict is Verdict.no_worse:
            self.refused[cell] = "not shown to beat the bare base"
            return None
        return Verdict.undecided

    def _judged(
        self, cell: CellKey, reference: CellKey, candidates: int, seeds: int | None = None
    ) -> Verdict | None:
        """What one look makes of a candidate; by default at all its seeds. None: refused."""
        last = self._last(cell, reference)
        look = self._look(cell, reference, seeds or last, last, candidates)
        if look is None:
            self.refused[cell] = "fewer than two independent items in common with the reference"
            return None
        self.looks.append(look)
        if look.out_of_reach:
            self.refused[cell] = OUT_OF_REACH
            return None
        if look.verdict is Verdict.no_worse and not self.evidence.beats_base(
            cell, look.seeds, candidates + 1
        ):
            return Verdict.undecided
        return look.verdict

    def _last(self, cell: CellKey, reference: CellKey) -> int:
        return min(len(self.compared.cells[one].declared) for one in (cell, reference))

    def _look(
        self, cell: CellKey, reference: CellKey, seeds: int, last: int, candidates: int
    ) -> Look | None:
        """None where they share too few items to be compared."""
        raw = self.evidence.difference(cell, reference, seeds)
        if raw is None:
            return None
        rule, measure, margin = self.compared.study.decide, self.measure, self.compared.margin
        known = {look.cell: look.seeds for look in self.looks} | {cell: seeds}
        shown, far = self.evidence.components_between(known, reference), self._far()
        near = seed_spreads(shown, far, rule, measure, margin).of(raw, cell, reference)
        # What is shown to be worse ships nothing: there the spread of hopeless ones counts too.
        every = seed_spreads(shown, (), rule, measure, margin).of(raw, cell, reference)
        shares = {one.seeds: one.share for one in self.looks if one.cell == cell}
        again = seeds in shares
        if not again:
            parts = near.two_way.components
            shares[seeds] = _share(parts, seeds, last, max(shares.values(), default=0.0))
        spent = tuple(shares.values())
        level = float(norm.sf(bounds(spent, rule.error / candidates)[-1]))
        choices = choice_factor(len(reference_choices(self.compared)))
        beyond = min(1.0, choices * _one_sided(every.p_beyond))
        within = _one_sided(near.p_margin)
        dropping = float(norm.sf(bounds(spent, rule.error)[-1]))
        verdict = Verdict.undecided
        if within < level:
            verdict = Verdict.no_worse
        elif beyond < dropping:
            verdict = Verdict.worse
        behind = seeds / last * harm(near.difference, self.measure) > margin
        out = behind and verdict is Verdict.undecided and seeds < last
        return Look(cell, near, shares[seeds], level, within, beyond, verdict, out)

    def _far(self) -> list[CellKey]:
        """What lies so far behind the reference that its seeds say nothing of others."""
        limit = FAR_MARGINS * self.compared.margin
        return [look.cell for look in self.looks if harm(look.difference, self.measure) > limit]

    def _ask(self, seeds: Mapping[CellKey, int]) -> dict[CellKey, list[str]]:
        """The first so many trials of each cell; a cell of which one failed is left out.

        Raises:
            _Wanting: some are neither there nor known to have failed.
        """
        wanted, lost = [], set()
        for cell, count in seeds.items():
            for trial in self.compared.cells[cell].declared[:count]:
                self.used[trial.trial] = None
                lacks = trial.status in (MISSING, NOT_NEEDED) or trial.reason == NO_EVALUATION
                if lacks or trial.status in PASSING:
                    wanted.append(trial.trial)
                elif trial.test is None:
                    lost.add(cell)
        if wanted:
            raise _Wanting(wanted)
        return {c: self.evidence.trials(c, count) for c, count in seeds.items() if c not in lost}

    def _failure(self, cell: CellKey) -> str:
        lost = next(t for t in self.compared.cells[cell].declared if t.test is None)
        return f"seed {lost.seed} {lost.status}" + (f" ({lost.reason})" if lost.reason else "")


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
