"""What a configuration costs, from the records of its trials."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.comparing.results import CellCost
from lorascope.config import Cost, DecideConfig
from lorascope.records import FootprintRecord, TrainingResult, TrialRecord

SECONDS_AN_HOUR = 3600


def cell_cost(
    trials: Sequence[TrialRecord] | None, stored: FootprintRecord | None, rule: DecideConfig
) -> CellCost:
    """Means over finished `trials`; None for a bare base, which costs its stored bytes alone.

    The seconds of a resumed training are those since its resume: they are left out.
    """
    is_base, trials = trials is None, trials or ()
    results = [trial.result for trial in trials if trial.result is not None]
    adapter = _mean([result.adapter_bytes for result in results])
    seconds = _mean([share_of_seconds(r) for r in results if r.resumed_at_step == 0])
    measured = _mean([peak for trial in trials if (peak := measured_peak(trial)) is not None])
    planned = _mean([trial.plan.peak_bytes["train"] for trial in trials if trial.plan])
    known = stored is not None and (is_base or adapter is not None)
    serving = stored.total_bytes if stored and known else None
    return CellCost(
        serving_bytes=None if serving is None else serving + (adapter or 0.0),
        training_peak_bytes=planned if measured is None else measured,
        peak_measured=measured is not None,
        adapter_bytes=adapter,
        train_seconds=seconds,
        money=_times(seconds, rule.price_per_hour),
        energy_watt_hours=_times(seconds, rule.power_watts),
    )


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


def value_of(cost: CellCost, kind: Cost) -> float | None:
    """The number that `kind` names."""
    if kind is Cost.energy:
        return cost.energy_watt_hours
    value: float | None = getattr(cost, kind.value)
    return value


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _times(seconds: float | None, rate: float | None) -> float | None:
    return None if seconds is None or rate is None else seconds / SECONDS_AN_HOUR * rate
