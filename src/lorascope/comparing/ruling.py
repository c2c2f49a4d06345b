"""What the declared rule makes of a study, and all findings together; typed, as in `results`."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.comparing.forgetting import Forgetting
from lorascope.comparing.groups import GroupScore
from lorascope.comparing.results import (
    CellKey,
    CellScore,
    Comparison,
    Estimate,
    FrontierPoint,
    Measure,
    Power,
    Verdict,
)
from lorascope.comparing.settling import Settling
from lorascope.comparing.token_prices import TokenPrice
from lorascope.comparing.ways import ServedWay
from lorascope.config import DecideConfig


@dataclass(frozen=True)
class Projection:
    """What more seeds would make of a 95 % interval's half width on validation items."""

    more_seeds: int
    half_width: float
    """As it is."""
    lowest: float
    highest: float | None
    """None where nothing bounds it: one seed, and few answers that differ."""
    seed_spread_known: bool


@dataclass(frozen=True)
class Candidate:
    """One cell under the declared rule, judged on validation items."""

    cell: CellKey
    cost: float | None
    least_cost: float | None
    """What it costs at least where the cost itself is unknown."""
    difference: Estimate | None = None
    """Subject minus reference on validation items; None for the reference itself, or unscored."""
    p_margin_holm: float | None = None
    verdict: Verdict | None = None
    """no_worse, worse by more than the margin, or undecided; corrected for all candidates."""
    beyond_margin: bool = False
    """The estimate is worse by more than the margin, shown or not."""
    near_margin: bool = False
    """The estimate lies within half a standard error of the margin."""
    held_to: float | None = None
    """Where it is undecided though its own 95 % interval lies wholly on one side of the margin:
    the confidence of the interval that would have to, as it is one of several that are judged."""
    ineligible: str | None = None
    """Why the cell cannot be shipped, or not be judged."""
    forgets: bool = False
    """Shown to forget more than the rule allows, which is why it cannot be shipped."""
    items_needed: int | None = None
    """Validation items in all that would settle it if the difference stays; None: none would."""
    seeds_needed: int | None = None
    """Seeds in all, likewise; None where unknown."""


@dataclass(frozen=True)
class FreshScore:
    """What the rule's choice scores on test items with seeds that did not choose."""

    estimate: Estimate
    chosen: tuple[CellKey, ...]
    """What the rule chose without the first seed, without the second, and so on."""


@dataclass(frozen=True)
class Gain:
    """What an adapter gained over a bare base, on validation items."""

    cell: CellKey
    base: CellKey
    """The one that validates best among those whose mode takes no more bytes."""
    difference: Estimate
    """Adapter minus base, mean over its seeds; the interval is over items alone."""
    p_holm: float
    """Against no difference, corrected for all adapters."""
    shown: bool
    """That the adapter is better than the base."""


@dataclass(frozen=True)
class SettleItems:
    """Validation items of a study that is settled (search=settle), where accuracy decides."""

    there: int
    judging: int
    """Without those that choose the reference."""
    least: int
    """Fewer that judge show no candidate within the margin, were not one answer different."""


@dataclass(frozen=True)
class Decision:
    """The declared rule's answer."""

    rule: DecideConfig
    measure: Measure
    margin: float
    reference: CellKey | None
    """None where nothing of the study is scored."""
    reference_gain: float | None
    """What the reference's training gained over its bare base on validation items, above zero where
    it helped; None where the base has no score."""
    gains: tuple[Gain, ...]
    """Of every scored adapter that a bare base can be held against."""
    reference_is_declared: bool
    """False where the study lacks the rule's mode or rank, so that another one stands in."""
    candidates: tuple[Candidate, ...]
    """By cost, the reference among them; unknown costs last."""
    recommended: CellKey | None
    trial: str | None
    """The recommended cell's trial that validates best."""
    open: tuple[Candidate, ...]
    """Cheaper than the recommended cell and undecided."""
    unknown: tuple[Candidate, ...]
    """Perhaps cheaper than the recommended cell, and without a judgement: not finished, not
    comparable, or of unknown cost. What diverged is not among them: it cannot ship."""
    test: Comparison | None
    """Recommended against reference on test items; None where they are one."""
    projection: Projection | None
    """Of the recommended cell against the reference; where they are one, of the cheapest open
    candidate."""
    seeds: int
    """Seeds that the answer rests on: the fewest of the recommended cell and of the comparisons
    that passed it or ruled out what is cheaper. With one, it is about these adapters alone."""
    fresh: FreshScore | None = None
    """None with one seed, or without a recommendation."""
    settling: Settling | None = None
    settle_items: SettleItems | None = None
    """None where losses decide, or nothing is cheaper than the reference."""
    """With search=settle, the course that led to the answer."""
    declared: int = 0
    """Trials of the grid, trained or not."""

    @property
    def none_beats_base(self) -> bool:
        """No adapter is shown to be better than the bare base."""
        return bool(self.gains) and not any(gain.shown for gain in self.gains)

    @property
    def gain_is_unknown(self) -> bool:
        """Something is recommended that no bare base was held against."""
        known = {gain.cell for gain in self.gains}
        return self.recommended is not None and self.recommended not in known

    @property
    def settled(self) -> bool:
        """Nothing that may be cheaper is left open, against the reference that was declared, the
        margin could tell a trained adapter from none, the bare base has a score, and two seeds or
        more were trained."""
        left = self.open or self.unknown or self.margin_hides_training or self.gain_is_unknown
        rests = self.reference_is_declared and not self.one_seed
        return self.recommended is not None and rests and not left

    @property
    def one_seed(self) -> bool:
        """Nothing is known of other seeds."""
        return self.recommended is not None and self.seeds < 2

    @property
    def holds_for(self) -> str | None:
        """The seeds that the answer is about."""
        if self.recommended is None:
            return None
        return "this seed; unknown for others" if self.one_seed else "seeds like these"

    @property
    def margin_hides_training(self) -> bool:
        """An adapter that learnt nothing would lie within the margin of the reference."""
        return self.reference_gain is not None and self.reference_gain <= self.margin


@dataclass(frozen=True)
class Findings:
    """All that is said about a study's scores."""

    measure: Measure
    cells: tuple[CellScore, ...]
    comparisons: tuple[Comparison, ...]
    decision: Decision
    frontiers: dict[str, tuple[FrontierPoint, ...]]
    """Name of a cost -> its points; costs that no cell has are left out."""
    power: Power | None
    chance: float | None
    """Share of test items that guessing gets right, where they are choices."""
    threats: tuple[str, ...]
    """What the data themselves show against the conclusions, as sentences made from numbers."""
    coverage: tuple[str, ...] = ()
    """What modes do not quantize and adapters do not reach, as sentences."""
    ways: tuple[ServedWay, ...] = ()
    """Ways to serve in one mode, where the study has several, by the study's measure."""
    ways_by_loss: tuple[ServedWay, ...] = ()
    """The same by the loss, where the measure is accuracy."""
    forgetting: tuple[Forgetting, ...] = ()
    """Of every configuration, where the study has rows that may be forgotten."""
    groups: tuple[GroupScore, ...] = ()
    """Scores of the leading configurations on each kind of test rows, where the data have kinds."""
    token_prices: tuple[TokenPrice, ...] = ()
    """Tokens a second and their price, where they were measured or a price is stated."""

    def score(self, cell: CellKey) -> CellScore:
        """The scores of `cell`."""
        return next(score for score in self.cells if score.cell == cell)
