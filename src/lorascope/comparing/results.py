"""What comparing makes of a study: typed, without a sentence in it.

Shares lie in 0 to 1, losses are nats a completion token. None is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

from lorascope.adapters.kinds import method_of
from lorascope.config import APART, Cost
from lorascope.records import Dial, DialValue, TrialKey


class Measure(StrEnum):
    """What is compared: accuracy where items can be right or wrong, else the completion loss."""

    accuracy = "accuracy"
    """Share of right items; more is better. People read per cent, and points of difference."""
    loss_nats = "loss_nats"
    """Nats a completion token; less is better."""

    @property
    def words(self) -> str:
        """Name in a sentence."""
        return "accuracy" if self is Measure.accuracy else "completion loss"

    @property
    def unit(self) -> str:
        """Of a score."""
        return "%" if self is Measure.accuracy else "nats"

    @property
    def step(self) -> str:
        """Unit of a difference of scores."""
        return "points" if self is Measure.accuracy else "nats"

    @property
    def scale(self) -> float:
        """From a score to the number that people read."""
        return 100.0 if self is Measure.accuracy else 1.0

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self is Measure.accuracy else -1

    def score(self, value: float) -> str:
        """75.8, or 0.6314."""
        return f"{100 * value:.1f}" if self is Measure.accuracy else f"{value:.4f}"

    def width(self, value: float) -> str:
        """A distance between scores, without a sign."""
        return self.score(abs(value))

    def distance(self, value: float) -> str:
        """The same with its unit: 1.2 points, or 0.0312 nats."""
        return f"{self.width(value)} {self.step}"

    def difference(self, value: float) -> str:
        """With its sign: +1.2 or −1.2; what rounds to zero has none."""
        number = self.width(value)
        if not number.strip("0."):
            return number
        return f"{'+' if value > 0 else '−'}{number}"

    def interval(self, ends: tuple[float, float]) -> str:
        """Of a score: 71.3 to 79.7."""
        return " to ".join(map(self.score, ends))

    def difference_interval(self, ends: tuple[float, float]) -> str:
        """Of a difference: −4.0 to +1.2."""
        return " to ".join(map(self.difference, ends))


class Verdict(StrEnum):
    """What a comparison establishes."""

    better = "better"
    worse = "worse"
    worse_within = "worse, within the margin"
    no_worse = "no worse than the margin"
    undecided = "undecided"


class Pairing(StrEnum):
    """Why two configurations are compared."""

    mode = "mode"
    """A mode against the reference mode, all else equal."""
    rank = "rank"
    """An adapter against the one of its mode that validates best."""
    base = "base"
    """An adapter against its mode's bare base."""
    served = "served"
    """A merged and stored model against the very adapters apart on their base."""
    ways = "ways"
    """Two ways to serve an adapter in one mode, or one of them against the reference mode."""
    decision = "decision"
    """What is recommended against the rule's reference, where no other pairing has it."""


@dataclass(frozen=True, order=True)
class CellKey:
    """A configuration whatever the seed: an adapter on a mode's base, or that base bare."""

    quant: str
    """The quantization mode."""
    method: str = ""
    targets: str = ""
    dials: tuple[tuple[str, DialValue], ...] = ()
    """Name and value of the settings that the method shows, in its order."""
    variant: str = ""
    """Other settings in which the study's trials differ, as 'learning_rate=0.001'."""
    base: bool = False
    """The mode's bare base: nothing is trained."""
    serve: str = APART
    """The form that is scored: the adapter apart on its base, or the mode that the merged model is
    stored in."""

    @property
    def apart(self) -> CellKey:
        """The same adapter apart on its base."""
        return replace(self, serve=APART)

    def dial(self, name: str) -> DialValue | None:
        """The value of one dial; None where the method has no such dial."""
        return dict(self.dials).get(name)

    def shown(self) -> list[tuple[Dial, DialValue]]:
        """Its dials as readers see them, each with its value."""
        return [(dial_of(self.method, name), value) for name, value in self.dials]

    def size(self) -> str:
        """rank 64; the method where nothing sizes its adapters."""
        sizes = [dial.words(value) for dial, value in self.shown() if dial.is_axis]
        return ", ".join(sizes) or method_of(self.method).label


@cache
def dial_of(method: str, name: str) -> Dial:
    """As `Method.dial`: tables ask for it in each of their cells."""
    return method_of(method).dial(name)


def cell_of(key: TrialKey, variant: str = "", serve: str = APART) -> CellKey:
    """The cell that a trial belongs to, in one of its forms."""
    dials = tuple(key.dials.items())
    return CellKey(key.quant, key.method, key.targets, dials, variant, serve=serve)


@dataclass(frozen=True)
class SeedTrial:
    """One declared trial of a cell."""

    trial: str
    seed: int
    status: str
    """A `Status`, 'missing', or 'not scored'."""
    reason: str | None
    validation: float | None
    """In the study's measure."""
    test: float | None


@dataclass(frozen=True)
class Estimate:
    """A number from a sample, with what sampling makes of it."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    standard_error: float
    """Of sampling items, and of seeds where there are several."""
    items: int
    clusters: int | None
    """Groups of items that share something; None where each stands alone."""
    seeds: int
    seed_deviation: float | None
    """Standard deviation from seed to seed; None with one seed: unknown, not zero."""
    item_error: float | None = None
    """The part of the standard error that comes from sampling items."""

    @property
    def ends(self) -> tuple[float, float]:
        """Of the 95 % interval."""
        return self.low, self.high


@dataclass(frozen=True)
class CellScore:
    """A cell with its scores."""

    cell: CellKey
    trials: tuple[SeedTrial, ...]
    """By seed; empty for a bare base."""
    accuracy: Estimate | None
    """On test items."""
    loss: Estimate | None
    """On test items."""
    validation: Estimate | None
    """In the study's measure."""
    costs: Mapping[Cost, float]
    """Those that are known; see `comparing.costs.COSTS`."""
    peak_measured: bool
    """The training peak was measured, not predicted."""
    complete: bool
    """Every declared seed was trained and scored."""

    def test(self, measure: Measure) -> Estimate | None:
        """On test items."""
        return self.accuracy if measure is Measure.accuracy else self.loss


@dataclass(frozen=True)
class Comparison:
    """Two cells on the same test items and the same seeds: subject minus reference."""

    pairing: Pairing
    subject: CellKey
    reference: CellKey
    measure: Measure
    difference: Estimate
    p_value: float
    p_holm: float
    """Corrected for all comparisons of the study."""
    p_margin_holm: float
    """For 'worse by the margin or more', corrected likewise."""
    verdict: Verdict
    subject_only_right: int | None
    """Items that the subject alone gets right, summed over seeds."""
    reference_only_right: int | None
    judged: int | None
    """Items x seeds in these counts."""
    divergence_nats: float | None
    """Mean KL divergence a token from the reference's next-token distribution."""
    smaller_than_seed_spread: bool | None
    """None with one seed."""
    detectable: float
    """Smallest true difference that this comparison finds eight times of ten, uncorrected."""
    detectable_corrected: float
    """The same at the level that Holm's first step leaves."""
    confounds: tuple[str, ...]
    """What else differs between the two."""


@dataclass(frozen=True)
class FrontierPoint:
    """A cell in the plane of a cost and the study's measure."""

    cost_name: Cost
    cell: CellKey
    cost: float
    score: float
    on_frontier: bool
    probability: float
    """Share of resampled item sets that put it on the frontier; spread between seeds and noise of
    the cost are not in it."""
    complete: bool = True
    """Every declared seed has scores."""


@dataclass(frozen=True)
class Reach:
    """How small a difference a number of items can show."""

    significant: float
    """Smallest difference that is significant at 5 %."""
    found: float
    """Smallest true difference that comes out significant eight times of ten."""


@dataclass(frozen=True)
class Power:
    """What the item counts of a study can show."""

    items: int
    clusters: int | None
    measure: Measure
    before: dict[str, Reach]
    """Assumed share of discordant items (as '10 %') -> what independent items can show; empty for
    losses."""
    unpaired: Reach | None
    """The same without pairing, at the median accuracy: two runs on separate items."""
    after: float | None
    """Median over the mode comparisons of what is found eight times of ten."""
    comparisons: int
    after_corrected: float | None
    """The same at the level that Holm's first step asks for."""
