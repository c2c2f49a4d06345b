"""What a settling has spent, and whether it may begin another round."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.comparing.costs import SECONDS_AN_HOUR, share_of_seconds
from lorascope.comparing.settling import Settling
from lorascope.config import DecideConfig
from lorascope.records import Study


@dataclass(frozen=True)
class Spent:
    """By the records of the trials that were asked for."""

    trials: int
    hours: float
    """Of training, a pack's time shared among its trials."""
    money: float | None
    """None without a price."""


def is_limited(rule: DecideConfig) -> bool:
    """Whether the rule sets any budget."""
    budgets = (rule.budget_trials, rule.budget_hours, rule.budget_money)
    return any(budget is not None for budget in budgets)


def spent(study: Study, settling: Settling, rule: DecideConfig) -> Spent:
    """So far."""
    used = [trial for trial in study.trials if trial.trial in settling.used]
    hours = sum(share_of_seconds(t.result) for t in used if t.result) / SECONDS_AN_HOUR
    money = None if rule.price_per_hour is None else hours * rule.price_per_hour
    return Spent(len(used), hours, money)


def stops(study: Study, settling: Settling, rule: DecideConfig) -> str | None:
    """Why no other round begins; None where it may."""
    so_far = spent(study, settling, rule)
    there = {trial.trial for trial in study.trials}
    trials = so_far.trials + len(set(settling.wanted) - there)
    if rule.budget_trials is not None and trials > rule.budget_trials:
        return f"budget_trials={rule.budget_trials}: the next look needs {trials} trials in all"
    if rule.budget_hours is not None and so_far.hours >= rule.budget_hours:
        return f"budget_hours={rule.budget_hours:g}: {so_far.hours:.3g} hours are spent"
    money = so_far.money
    if rule.budget_money is not None and money is not None and money >= rule.budget_money:
        return f"budget_money={rule.budget_money:g}: {money:.3g} are spent"
    return None
