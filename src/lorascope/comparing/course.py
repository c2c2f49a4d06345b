"""Which trials the answer needs, in the order in which they are needed: cheapest first.

The course of a settling is replayed from records alone. It asks for trials, looks at a candidate
once its seeds are scored, and goes on; where it asks for something that is not there it ends, and
says what is wanted next. So it is the same live, after a kill, and on a full grid, of which it uses
those trials that it would have asked for.

A candidate is looked at with two seeds, then with each further one. It is accepted when it is shown
to be within the margin and to beat the bare base; dropped when it is shown to be worse than the
margin allows, or when further seeds would hardly bring it to be accepted; and undecided when its
seeds end (`comparing.looks`). The chance to ship one that is worse than the margin allows is at
most the declared error, however many are looked at and however often.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from lorascope.comparing.budget import is_limited
from lorascope.comparing.cells import MISSING, NO_EVALUATION, NOT_NEEDED, Compared, declared_cost
from lorascope.comparing.estimates import cell_estimate
from lorascope.comparing.evidence import Evidence, Panel, harm, panel_of
from lorascope.comparing.looks import Looks
from lorascope.comparing.reference import reference_choices
from lorascope.comparing.results import CellKey, Measure, Verdict
from lorascope.comparing.settling import Settling
from lorascope.config import DecideConfig

FIRST_LOOK = 2
"""Seeds before the first look: one says nothing of others."""
UNTRAINED = (MISSING, NOT_NEEDED)
NO_GAIN = "not shown to beat the bare base"
OUT_OF_REACH = "out of reach: further seeds would hardly show it within the margin"


class _Wanting(Exception):
    """Trials are asked for that are not there."""

    def __init__(self, trials: Sequence[str]) -> None:
        super().__init__(*trials)
        self.trials = tuple(trials)


class _ReferenceFailed(Exception):
    """A training of the reference failed for good."""


def pack_mates(order: Sequence[CellKey], place: int, rule: DecideConfig) -> list[CellKey]:
    """The next candidates of the mode of the one at `place`, so many as are trained in advance:
    what is counts for no budget as long as nothing asks for it, so that none is where one is set.
    """
    later = [cell for cell in order[place + 1 :] if cell.quant == order[place].quant]
    return [] if is_limited(rule) else later[: rule.ahead]


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
    refused: dict[CellKey, str] = field(default_factory=dict)
    looks: Looks | None = None
    """None as long as no reference is chosen."""

    @property
    def compared(self) -> Compared:
        """The declared cells, with what there is of them."""
        return self.evidence.compared

    def run(self) -> Settling:
        """How far it comes."""
        try:
            return self._settled()
        except _Wanting as stop:
            return replace(self._found(), wanted=stop.trials, ahead=self._ahead(stop.trials))

    def _settled(self) -> Settling:
        """With the best reference of which no seed failed.

        Raises:
            _Wanting: trials are asked for that are not there.
        """
        failed = None
        for reference in self.ranked_references():
            self.looks = Looks(self.evidence, reference, self.candidates(reference))
            try:
                accepted = self._accepted(self.looks)
                return replace(self._found(), accepted=accepted)
            except _ReferenceFailed as lost:
                # What was held against it says nothing any more.
                failed, self.looks, self.refused = str(lost), None, {}
        return replace(self._found(), no_reference=failed or self._why_none_chosen())

    def _why_none_chosen(self) -> str:
        lost = filter(self._failure, reference_choices(self.compared))
        named = map(self._named_failure, lost)
        return next(named, "no validation item chooses it; name decide.reference_rank")

    def _found(self) -> Settling:
        used, looks = frozenset(self.used), self.looks
        if looks is None:
            return Settling(used)
        return Settling(used, looks.reference, looks.order, tuple(looks.taken), self.refused)

    def _ahead(self, wanted: Collection[str]) -> tuple[str, ...]:
        """First seeds of those that share a pack with one that is to be looked at first."""
        order, cells = self.looks.order if self.looks else (), self.compared.cells
        for place, cell in enumerate(order):
            own = cells[cell].declared[:FIRST_LOOK]
            # Where its seeds only lack a score there is no pack to share.
            if any(t.trial in wanted and t.status in UNTRAINED for t in own):
                sharing = pack_mates(order, place, self.compared.study.decide)
                first_ones = chain(*(cells[mate].declared[:FIRST_LOOK] for mate in sharing))
                return tuple(t.trial for t in first_ones if t.status in UNTRAINED)
        return ()

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

    def _accepted(self, looks: Looks) -> CellKey | None:
        """The cheapest candidate that passes; the reference where none does."""
        passed, open_ones = None, []
        for cell in looks.order:
            verdict = self._verdict(cell, looks)
            if verdict is Verdict.no_worse:
                passed = cell
                break
            if verdict is Verdict.undecided:
                open_ones.append(cell)
        for cell in open_ones:
            # Its seeds have ended; what later ones show of the spread between seeds may settle it.
            if self._look(cell, len(self._seeds(cell)), looks) is Verdict.no_worse:
                return cell
        return passed or self._reference_if_it_gains(looks)

    def _reference_if_it_gains(self, looks: Looks) -> CellKey | None:
        """Where it is shown to beat the bare base, with as many seeds as that takes."""
        reference = looks.reference
        for seeds in range(FIRST_LOOK, len(self._seeds(reference)) + 1):
            self._ask_with(reference, {reference: seeds})
            if self.evidence.beats_base(reference, seeds, len(looks.order) + 1):
                return reference
        return None

    def _seeds(self, cell: CellKey) -> list[int]:
        return [trial.seed for trial in self.compared.cells[cell].declared]

    def _verdict(self, cell: CellKey, looks: Looks) -> Verdict | None:
        """Of the looks at a candidate until one decides, or its seeds end; None: refused."""
        reference, seeds = looks.reference, self._seeds(cell)
        if seeds != self._seeds(reference) or len(seeds) < FIRST_LOOK:
            self.refused[cell] = "other seeds are declared than of the reference, or fewer than two"
            return None
        for count in range(FIRST_LOOK, len(seeds) + 1):
            if cell not in self._ask_with(reference, {cell: count, reference: count}):
                self.refused[cell] = self._failure(cell)
                return None
            verdict = self._look(cell, count, looks)
            if verdict is not Verdict.undecided:
                return verdict
        return Verdict.undecided

    def _look(self, cell: CellKey, seeds: int, looks: Looks) -> Verdict | None:
        """What one look makes of a candidate; None: refused."""
        look = looks.take(cell, seeds)
        if look is None:
            self.refused[cell] = "fewer than two independent items in common with the reference"
            return None
        if look.out_of_reach:
            self.refused[cell] = OUT_OF_REACH
            return None
        if look.no_gain and seeds == len(self._seeds(cell)):
            self.refused[cell] = NO_GAIN
            return None
        return look.verdict

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

    def _ask(self, seeds: Mapping[CellKey, int]) -> dict[CellKey, list[str]]:
        """The first so many trials of each cell; a cell of which one failed is left out.

        Raises:
            _Wanting: some are neither there nor known to have failed.
        """
        wanted, lost = [], set()
        for cell, count in seeds.items():
            for trial in self.compared.cells[cell].declared[:count]:
                self.used.add(trial.trial)
                if trial.status in UNTRAINED or trial.reason == NO_EVALUATION:
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
