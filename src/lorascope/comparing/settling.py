"""What a settling found: its looks, what they made of each candidate, and what it asks for next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lorascope.comparing.estimates import (
    Tested,
)
from lorascope.comparing.results import CellKey, Estimate, Verdict


@dataclass(frozen=True)
class Look:
    """A candidate held against the reference with so many seeds, on validation items."""

    cell: CellKey
    tested: Tested
    """With the spread between seeds as it was known at the look."""
    share: float
    """Of the information that all declared seeds would bring."""
    error: float
    """What this candidate's looks may spend of the declared error."""
    level: float
    """What a one-sided p value is held against at this look."""
    p_within: float
    """One-sided, against 'worse by the margin or more'."""
    p_beyond: float
    """One-sided, against 'no worse than the margin'."""
    verdict: Verdict
    out_of_reach: bool
    """Further seeds would hardly bring it to be accepted."""
    no_gain: bool
    """Within the margin, and not shown to beat the bare base."""

    @property
    def difference(self) -> Estimate:
        """Candidate minus reference."""
        return self.tested.difference

    @property
    def seeds(self) -> int:
        """Seeds of each of the two."""
        return self.tested.difference.seeds


@dataclass(frozen=True)
class Settling:
    """How far the answer stands."""

    used: frozenset[str]
    """Names of the trials that were asked for."""
    reference: CellKey | None = None
    """None as long as it is not chosen, and where there is none."""
    order: tuple[CellKey, ...] = ()
    """The candidates, cheapest first; those that cost no less than the reference are none."""
    looks: tuple[Look, ...] = ()
    refused: Mapping[CellKey, str] = field(default_factory=dict)
    """Candidates that cannot ship, and why: a training that failed, no gain over the bare base."""
    wanted: tuple[str, ...] = ()
    """Names of those that are not there yet; none where the answer stands."""
    ahead: tuple[str, ...] = ()
    """Names of those that share a pack with what is wanted, and may be wanted next."""
    accepted: CellKey | None = None
    """What ships: a candidate, or the reference where no candidate does."""
    no_reference: str | None = None
    """Why there is nothing to hold candidates against."""

    def last_look(self, cell: CellKey) -> Look | None:
        """The newest one at a candidate."""
        return next((look for look in reversed(self.looks) if look.cell == cell), None)

    @property
    def undecided(self) -> tuple[CellKey, ...]:
        """Candidates whose seeds ended without a verdict."""
        ended = {look.cell: look.verdict for look in self.looks}
        return tuple(
            cell
            for cell in self.order
            if ended.get(cell) is Verdict.undecided and cell not in self.refused
        )
