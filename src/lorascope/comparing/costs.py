"""What a configuration costs, from the records of its trials: one table of all costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorascope.config import Cost, DecideConfig
from lorascope.records import FootprintRecord, ServedForm, TrainingResult, TrialRecord

SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Spent:
    """The records that the costs of one configuration are made of."""

    trials: Sequence[TrialRecord]
    """Its finished trials; none for a bare base."""
    stored: FootprintRecord | None
    """The stored base of its mode."""
    rule: DecideConfig
    """Prices an hour."""
    base: bool
    """Whether it is a bare base, which costs its stored bytes alone."""
    is_merged: bool = False
    """Whether adapters are merged into models that are stored in a mode of their own."""
    served: Sequence[ServedForm] = ()
    """Those models."""

    @property
    def results(self) -> list[TrainingResult]:
        return [trial.result for trial in self.trials if trial.result is not None]


@dataclass(frozen=True)
class CostKind:
    """One cost: less is better, None is unknown, and of several seeds it is the mean."""

    cost: Cost
    words: str
    """Name in a sentence."""
    header: str
    """Header of its column."""
    unit: str
    """bytes, s, Wh; empty for a number as it is."""
    of: Callable[[Spent], float | None]
    column: str = ""
    """Column of cells.csv, where that is not the cost's name."""
    on_frontier: bool = True
    """Whether configurations have a frontier of this cost and their score."""


def cell_costs(spent: Spent) -> dict[Cost, float]:
    """Every cost that is known of one configuration."""
    found = {kind.cost: kind.of(spent) for kind in COSTS.values()}
    return {cost: value for cost, value in found.items() if value is not None}


def _serving_bytes(spent: Spent) -> float | None:
    """The stored base and, unless it is bare, the adapter; of what is merged, the stored model."""
    if spent.is_merged:
        return _mean([form.total_bytes for form in spent.served])
    adapter = 0.0 if spent.base else _adapter_bytes(spent)
    return None if spent.stored is None or adapter is None else spent.stored.total_bytes + adapter


def _adapter_bytes(spent: Spent) -> float | None:
    return _mean([result.adapter_bytes for result in spent.results])


def _training_peak_bytes(spent: Spent) -> float | None:
    measured = [peak for trial in spent.trials if (peak := measured_peak(trial)) is not None]
    return _mean(measured or [t.plan.peak_bytes["train"] for t in spent.trials if t.plan])


def _train_seconds(spent: Spent) -> float | None:
    """The seconds of a resumed training are those since its resume: they are left out."""
    return _mean([share_of_seconds(r) for r in spent.results if r.resumed_at_step == 0])


def _hourly(spent: Spent, rate: float | None) -> float | None:
    seconds = _train_seconds(spent)
    return None if seconds is None or rate is None else seconds / SECONDS_AN_HOUR * rate


COSTS = {
    kind.cost: kind
    for kind in (
        CostKind(Cost.serving_bytes, "serving memory", "Serving", "bytes", _serving_bytes),
        CostKind(
            Cost.training_peak_bytes, "training peak", "Training peak", "bytes",
            _training_peak_bytes,
        ),
        CostKind(
            Cost.adapter_bytes, "adapter size", "Adapter", "bytes", _adapter_bytes,
            on_frontier=False,
        ),
        CostKind(Cost.train_seconds, "training time", "Train", "s", _train_seconds),
        CostKind(
            Cost.money, "money", "Money", "",
            lambda spent: _hourly(spent, spent.rule.price_per_hour),
        ),
        CostKind(
            Cost.energy, "energy", "Energy", "Wh",
            lambda spent: _hourly(spent, spent.rule.power_watts), "energy_watt_hours",
        ),
    )
}  # fmt: skip
"""Every cost, in the order of tables and frontiers."""


def measured_peak(trial: TrialRecord) -> int | None:
    """Training's peak: the allocator's on CUDA, else the tracked tensors'. None for a trial that
    was trained together with others: their peak is no single trial's."""
    if trial.result is None or trial.result.trials_at_once > 1:
        return None
    phase = trial.result.memory.get("train")
    if phase is None:
        return None
    if phase.allocated_peak_bytes is not None:
        return phase.allocated_peak_bytes
    return phase.tracked_peak_bytes


def share_of_seconds(result: TrainingResult) -> float:
    """Of a pack's training, what falls to each of its trials."""
    return result.train_seconds / result.trials_at_once


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
