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
from dataclasses import dataclass, field, replace

from scipy.stats import norm

from lorascope.comparing.cells import MISSING, NO_EVALUATION, NOT_NEEDED, Compared, declared_cost
from lorascope.comparing.estimates import cell_estimate
from lorascope.comparing.evidence import Evidence, Panel, harm, panel_of
from lorascope.comparing.reference import FAR_MARGINS, reference_choices
from lorascope.comparing.results import CellKey, Measure, Verdict
from lorascope.comparing.seed_spread import seed_spreads
from lorascope.comparing.settling import Look, Settling
from lorascope.statistics.families import choice_factor
from lorascope.statistics.group_sequential import bounds
from lorascope.statistics.two_way import Components

FIRST_LOOK = 2
"""Seeds before the first look: one says nothing of others."""
NO_GAIN = "not shown to beat the bare base"
OUT_OF_REACH = "out of reach, were further seeds as good as the reference"
LEAST_RISE = 1e-6
"""Share of information by which a look is after another, where no seed brings any."""


class _Wanting(Exception):
    """Trials are asked for that are not there."""

    def __init__(self, trials: Sequence[str]) -> None:
        super().__init__(*trials)
        self.trials = tuple(trials)


class _ReferenceFailed(Exception):
    """A training of the reference failed for good."""


def settle(compared: Compared) -> Settling:
    """Replay the course of a settling over what is there of `compared`'s declared cells."""
    evidence = Evidence(compared, panel_of(compared, chooses=False))
    return Course(evidence, panel_of(compared, chooses=True)).run()


@dataclass
class Course:
    """One replay."""

    evidence: Evidence
    choosing: Panel | None
    used: set[str] = field(default_factory=set)
    looks: list[Look] = field(default_factory=list)
    refused: dict[CellKey, str] = field(default_factory=dict)
    reference: CellKey | None = None
    order: tuple[CellKey, ...] = ()

    @property
    def compared(self) -> Compared:
        """The declared cells, with what there is of them."""
        return self.evidence.compared

    def run(self) -> Settling:
        """How far it comes."""
        try:
            return self._settled()
        except _Wanting as stop:
            return replace(self._found(), wanted=stop.trials)

    def _settled(self) -> Settling:
        """With the best reference of which no seed failed.

        Raises:
            _Wanting: trials are asked for that are not there.
        """
        ranked, failed = self.ranked_references(), None
        for reference in ranked:
            self.reference, self.order = reference, self.candidates(reference)
            try:
                accepted = self._accepted(reference, self.order)
                return replace(self._found(), accepted=accepted)
            except _ReferenceFailed as lost:
                # What was held against it says nothing any more.
                failed = str(lost)
                self.looks, self.refused = [], {}
        self.reference, self.order = None, ()
        return replace(self._found(), no_reference=failed or self._why_none_chosen())

    def _why_none_chosen(self) -> str:
        lost = filter(self._failure, reference_choices(self.compared))
        named = map(self._named_failure, lost)
        return next(named, "no validation item chooses it; name decide.reference_rank")

    def _found(self) -> Settling:
        return Settling(
            used=frozenset(self.used), reference=self.reference, order=self.order,
            looks=tuple(self.looks), refused=self.refused,
        )  # fmt: skip

    def ranked_references(self) -> list[CellKey]:
        """The named one; else those of its mode, best first by their first seed on the choosing
        items, among equals the cheapest."""
        choices = reference_choices(self.compared)
        if len(choices) == 1:
            return choices
        scores = {}
        for cell, trials in self._ask(dict.fromkeys(choices, 1)).items():
            if self.choosing and trials[0] in self.choosing.rows:
                estimate = cell_estimate(self.choosing.of(trials), self.measure)
                if estimate is not None:
                    cost = declared_cost(cell, self.compared)
                    scores[cell] = harm(estimate, self.measure), cost, cell
        return sorted(scores, key=lambda cell: scores[cell])

    @property
    def measure(self) -> Measure:
        """Of the study."""
        return self.compared.measure

    def candidates(self, reference: CellKey) -> tuple[CellKey, ...]:
        """What costs less than the reference, cheapest first."""
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
        return reference if self._reference_gains(reference, len(order) + 1) else None

    def _reference_gains(self, reference: CellKey, tests: int) -> bool:
        """Whether it is shown to beat the bare base, with as many seeds as that takes."""
        for seeds in range(FIRST_LOOK, len(self.compared.cells[reference].declared) + 1):
            self._ask_with(reference, {reference: seeds})
            if self.evidence.beats_base(reference, seeds, tests):
                return True
        return False

    def _verdict(self, cell: CellKey, reference: CellKey, candidates: int) -> Verdict | None:
        """Of the looks at a candidate until one decides, or its seeds end; None: refused."""
        seeds = [
            [trial.seed for trial in self.compared.cells[c].declared] for c in (cell, reference)
        ]
        if seeds[0] != seeds[1] or len(seeds[0]) < FIRST_LOOK:
            self.refused[cell] = "other seeds are declared than of the reference, or fewer than two"
            return None
        verdict: Verdict | None = Verdict.undecided
        for count in range(FIRST_LOOK, len(seeds[0]) + 1):
            if cell not in self._ask_with(reference, {cell: count, reference: count}):
                self.refused[cell] = self._failure(cell)
                return None
            verdict = self._judged(cell, reference, candidates, count)
            if verdict is not Verdict.undecided:
                return verdict
        if self.looks[-1].no_gain:
            self.refused[cell] = NO_GAIN
            return None
        return verdict

    def _ask_with(
        self, reference: CellKey, seeds: Mapping[CellKey, int]
    ) -> dict[CellKey, list[str]]:
        """`_ask`, the reference among `seeds`.

        Raises:
            _Wanting: as `_ask`.
            _ReferenceFailed: a training of the reference did.
        """
        scored = self._ask(seeds)
        if reference not in scored:
            raise _ReferenceFailed(self._named_failure(reference))
        return scored

    def _judged(
        self, cell: CellKey, reference: CellKey, candidates: int, seeds: int | None = None
    ) -> Verdict | None:
        """What one look makes of a candidate; by default at all its seeds. None: refused."""
        last = len(self.compared.cells[cell].declared)
        look = self._look(cell, reference, seeds or last, last, candidates)
        if look is None:
            self.refused[cell] = "fewer than two independent items in common with the reference"
            return None
        self.looks.append(look)
        if look.out_of_reach:
            self.refused[cell] = OUT_OF_REACH
            return None
        return look.verdict

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
        verdict, no_gain = Verdict.undecided, False
        if within < level:
            no_gain = not self.evidence.beats_base(cell, seeds, candidates + 1)
            verdict = Verdict.undecided if no_gain else Verdict.no_worse
        elif beyond < dropping:
            verdict = Verdict.worse
        behind = seeds / last * harm(near.difference, self.measure) > margin
        out = behind and verdict is Verdict.undecided and seeds < last
        return Look(cell, near, shares[seeds], level, within, beyond, verdict, out, no_gain)

    def _far(self) -> list[CellKey]:
        """What lies, by its last look, so far behind the reference that its seeds say nothing of
        others."""
        limit = FAR_MARGINS * self.compared.margin
        last = {look.cell: harm(look.difference, self.measure) for look in self.looks}
        return [cell for cell, behind in last.items() if behind > limit]

    def _ask(self, seeds: Mapping[CellKey, int]) -> dict[CellKey, list[str]]:
        """The first so many trials of each cell; a cell of which one failed is left out.

        Raises:
            _Wanting: some are neither there nor known to have failed.
        """
        wanted, lost = [], set()
        for cell, count in seeds.items():
            for trial in self.compared.cells[cell].declared[:count]:
                self.used.add(trial.trial)
                if trial.status in (MISSING, NOT_NEEDED) or trial.reason == NO_EVALUATION:
                    wanted.append(trial.trial)
                elif trial.test is None:
                    lost.add(cell)
        if wanted:
            raise _Wanting(wanted)
        return {c: self.evidence.trials(c, count) for c, count in seeds.items() if c not in lost}

    def _failure(self, cell: CellKey) -> str:
        """Which of its trainings failed, and how; empty where none did."""
        trials = self.compared.cells[cell].declared
        lost = next((t for t in trials if t.trial in self.used and t.test is None), None)
        if lost is None:
            return ""
        reason = f" ({lost.reason})" if lost.reason else ""
        return f"seed {lost.seed} {lost.status}{reason}"

    def _named_failure(self, cell: CellKey) -> str:
        return f"{cell.quant}, {cell.size()}: {self._failure(cell)}"


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
