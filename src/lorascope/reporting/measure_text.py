"""How a study's scores and their differences read: per cent and points, or nats."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.comparing.results import Estimate, Measure

MINUS = "−"


@dataclass(frozen=True)
class MeasureText:
    """Numbers of one measure as words."""

    measure: Measure

    @property
    def name(self) -> str:
        """The measure in a sentence."""
        return "accuracy" if self._shares else "completion loss"

    @property
    def unit(self) -> str:
        """Of a score."""
        return "%" if self._shares else "nats"

    @property
    def step(self) -> str:
        """Of a difference of scores."""
        return "points" if self._shares else "nats"

    @property
    def _shares(self) -> bool:
        return self.measure is Measure.accuracy

    def score(self, value: float) -> str:
        """75.8, or 0.6314."""
        return f"{100 * value:.1f}" if self._shares else f"{value:.4f}"

    def width(self, value: float) -> str:
        """A distance between scores, without a sign."""
        return self.score(abs(value))

    def difference(self, value: float) -> str:
        """With its sign: +1.2 or −1.2; what rounds to zero has none."""
        number = self.width(value)
        if not number.strip("0."):
            return number
        return f"{'+' if value > 0 else MINUS}{number}"

    def interval(self, estimate: Estimate) -> str:
        """Of a score: 71.3 to 79.7."""
        return f"{self.score(estimate.low)} to {self.score(estimate.high)}"

    def difference_interval(self, estimate: Estimate) -> str:
        """Of a difference: −4.0 to +1.2."""
        return f"{self.difference(estimate.low)} to {self.difference(estimate.high)}"


def p_value(value: float) -> str:
    """Three decimals are more than such a number bears."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def share(value: float) -> str:
    """A probability as per cent: never 0 or 100 unless it is."""
    if 0 < value < 0.01:
        return "< 1"
    if 0.99 < value < 1:
        return "> 99"
    return f"{100 * value:.0f}"
