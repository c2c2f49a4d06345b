"""What a settling may still train, at the least and at the most, and how long a trial took so far.

Both ends are counted, not guessed: how many trials it will be depends on what the looks show. Only
how long one takes is an estimate, and it says of which trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lorascope.comparing.cells import Compared, gather, study_measure
from lorascope.comparing.costs import share_of_seconds
from lorascope.comparing.course import FIRST_LOOK, Course, pack_mates
from lorascope.comparing.evidence import Evidence
from lorascope.comparing.reference import reference_choices
from lorascope.comparing.results import CellKey, Verdict
from lorascope.comparing.settling import Settling
from lorascope.records import Study

Rounds = tuple[tuple[str, ...], ...]
"""Names of trials that are not there yet, by the round in which they are trained."""
Asked = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Names that are asked for; those of them in whose pack others are trained in advance; those."""


@dataclass(frozen=True)
class Pace:
    """How long trials took that are there."""

    seconds: float
    """Of training, the mean of their shares of their packs' time."""
    fastest: float
    slowest: float
    trials: int
    """How many these are; those that were resumed are left out, as their record lacks what came
    before."""


@dataclass(frozen=True)
class Foreseen:
    """What is still to be trained. A training of the reference that fails for good changes it."""

    least: Rounds
    """If the next look at a candidate accepts it."""
    most: Rounds
    """If each candidate that is left takes all its seeds, one after the other."""
    pace: Pace | None
    """None where nothing is trained: how long it takes is not known."""

    @property
    def trials(self) -> tuple[int, int]:
        """The least and the most."""
        return _count(self.least), _count(self.most)


def foreseen(study: Study, settling: Settling) -> Foreseen:
    """From here on; before a reference is chosen, over all that may be."""
    if not settling.wanted:
        return Foreseen((), (), _pace(study))
    measure = study_measure(study)
    compared = Compared(study, measure, gather(study, measure), {})
    if settling.reference is not None:
        left = [cell for cell in settling.order if _is_open(cell, settling)]
        asked = _asked(compared, settling, settling.reference, left)
        return Foreseen(_rounds(asked[:1], study), _rounds(asked, study), _pace(study))
    course = Course(Evidence(compared, None), None)
    least, most = [], []
    for reference in reference_choices(compared):
        asked = _asked(compared, settling, reference, course.candidates(reference))
        least.append(_rounds(asked[:2], study))
        most.append(_rounds(asked, study))
    return Foreseen(min(least, key=_count), max(most, key=_count), _pace(study))


def _pace(study: Study) -> Pace | None:
    """None where nothing is trained."""
    whole = [t.result for t in study.trials if t.result and t.result.resumed_at_step == 0]
    shares = [share_of_seconds(result) for result in whole]
    if not shares:
        return None
    return Pace(sum(shares) / len(shares), min(shares), max(shares), len(shares))


def _asked(
    compared: Compared, settling: Settling, reference: CellKey, left: Sequence[CellKey]
) -> list[Asked]:
    """Now, then at each look at those that are left, then for the reference."""

    def first(cell: CellKey, seeds: int) -> tuple[str, ...]:
        return tuple(trial.trial for trial in compared.cells[cell].declared[:seeds])

    def in_advance(place: int) -> tuple[str, ...]:
        mates = pack_mates(left, place, compared.study.decide)
        return tuple(name for cell in mates for name in first(cell, FIRST_LOOK))

    counts = range(FIRST_LOOK, len(compared.cells[reference].declared) + 1)
    looks = [
        (
            first(cell, seeds) + first(reference, seeds),
            first(cell, seeds),
            in_advance(place) * (seeds == FIRST_LOOK),
        )
        for place, cell in enumerate(left)
        for seeds in counts
    ]
    now = (settling.wanted, settling.wanted, settling.ahead)
    return [now, *looks, *((first(reference, seeds), (), ()) for seeds in counts)]


def _is_open(cell: CellKey, settling: Settling) -> bool:
    look = settling.last_look(cell)
    return cell not in settling.refused and (look is None or look.verdict is Verdict.undecided)


def _rounds(asked: Iterable[Asked], study: Study) -> Rounds:
    """Each trial once, without those that are there."""
    left, rounds = set(study.missing), []
    for names, own, advance in asked:
        if left & set(names):
            advance = advance if left & set(own) else ()
            rounds.append(tuple(name for name in (*names, *advance) if name in left))
            left -= set(rounds[-1])
    return tuple(rounds)


def _count(rounds: Rounds) -> int:
    return sum(map(len, rounds))
