"""The rule of what is good enough to ship: a file of conf/decide."""

from __future__ import annotations

from dataclasses import dataclass, field

from lorascope.config.bounds import (
    ABOVE_ZERO,
    BOUND,
    INFINITE,
    MAX_RANK,
    ZERO_OR_MORE,
    Bound,
    between,
    bounded,
    named,
)
from lorascope.config.choices import Cost

STATE_PRICE = "State what an hour of your machine costs."
HOSTED = Bound(
    lambda hosted: all(
        len(prices) == 2 and all(0 <= price < INFINITE for price in prices)
        for prices in hosted.values()
    ),
    "takes two prices a name: a million tokens read, a million written",
    "Write hosted: {some-model: [0.25, 2.0]}.",
)
STATE_POWER = "State how many watts your machine draws while training."


@dataclass
class DecideConfig:
    """The margins of what is good enough to ship, and the cost that it is judged by."""

    name: str = named("decide")
    reference_quant: str = "fp16"
    """The mode that others are held against; where the study lacks it, its first mode."""
    reference_rank: int | None = bounded(
        None, between(1, MAX_RANK), "Leave it empty for the rank that validates best."
    )
    """None takes the rank that validates best in the reference mode."""
    margin_accuracy: float = bounded(
        0.05,
        Bound(lambda v: 0 < v < 1, "must lie between 0 and 1: it is a share, not points"),
        "0.05 lets a cheaper configuration lose up to 5 points.",
    )
    """Largest loss of accuracy against the reference that is acceptable, as a share."""
    margin_loss_nats: float = bounded(0.05, ABOVE_ZERO, "Try 0.05.")
    """The same for data that are scored by loss only, in nats a completion token."""
    max_forgetting_nats: float | None = bounded(None, ABOVE_ZERO, "Leave it empty for no limit.")
    """Largest gain of loss, in nats a completion token, on the rows that evaluate.forgetting names:
    what may have forgotten more does not ship."""
    seed_spread_points: float | None = bounded(
        None,
        Bound(
            lambda points: 0 < points < 50,
            "must lie between 0 and 50: points of accuracy, a standard deviation",
        ),
        "2 says that two seeds of one configuration often differ by 3 points; empty is unknown.",
    )
    """Standard deviation of one configuration's accuracy from seed to seed, in points, where you
    know it from other studies. It is used where this study has too few seeds to show the spread.
    With None and one seed the spread is unknown, and no interval contains it."""
    seed_spread_nats: float | None = bounded(
        None,
        ABOVE_ZERO,
        "0.01 says that two seeds of one configuration often differ by 0.014; empty is unknown.",
    )
    """The same for data that are scored by loss only, in nats a completion token."""
    error: float = bounded(
        0.05, Bound(lambda v: 0 < v < 0.5, "must lie between 0 and 0.5: it is a share"), "Try 0.05."
    )
    """With search=settle: the largest chance to ship what is worse than the margin allows."""
    ahead: int = bounded(2, ZERO_OR_MORE, "0 trains nothing ahead of need.")
    """With search=settle: further candidates of a mode whose first seeds are trained in one pack
    with those that are asked for, before it is known whether they are needed: a pack takes less
    time than its trials one after the other. Where a budget is set nothing is trained ahead."""
    budget_trials: int | None = bounded(None, ABOVE_ZERO, "Leave it empty for as many as needed.")
    """With search=settle: trials that may be trained in all. None sets no limit."""
    budget_hours: float | None = bounded(None, ABOVE_ZERO, "Leave it empty for no limit.")
    """With search=settle: hours of training after which nothing new is begun, a pack's time shared
    among its trials."""
    budget_money: float | None = bounded(None, ABOVE_ZERO, "Leave it empty for no limit.")
    """The same in money, at price_per_hour."""
    cost: Cost = Cost.serving_bytes
    price_per_hour: float | None = bounded(None, ABOVE_ZERO, STATE_PRICE)
    """Price of an hour of the machine, in any currency, shown as it is: for cost=money, and for
    what a million tokens cost at the speed that was measured."""
    hosted: dict[str, list[float]] = field(default_factory=dict, metadata={BOUND: HOSTED})
    """Prices that others ask, beside which the report puts those: name -> money a million tokens
    read, and a million written, in the currency of price_per_hour."""
    power_watts: float | None = bounded(None, ABOVE_ZERO, STATE_POWER)
    """Power of the machine while it trains, for cost=energy."""
