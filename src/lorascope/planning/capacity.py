"""The largest micro-batch and rank that fit a given memory: lines through traces, then checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lorascope.adapters.kinds import rank_of
from lorascope.config.bounds import MAX_RANK
from lorascope.counting.parameters import padded_rank
from lorascope.planning.arithmetic import Affine, affine_through, largest_within
from lorascope.planning.depth import segments_like, training_trace
from lorascope.planning.plan import (
    Prediction,
    at_rank,
    needed_bytes,
    peak_of,
    plan_memory,
    predict_ranks,
)
from lorascope.planning.subject import PlanSubject

STACK_RANKS = (8, 16, 32, 64, 128, 256, MAX_RANK)
SECOND_RANK = 8
"""Through which the line goes when the planned rank is the largest there is."""


@dataclass(frozen=True)
class Capacity:
    """A trial's peaks as lines: of each segment of a training step, and of the other phases."""

    subject: PlanSubject
    planned: Prediction
    over_samples: Mapping[str, Affine]
    over_ranks: Mapping[str, Affine]
    """Over those that training pads to."""


def capacity_of(subject: PlanSubject, planned: Prediction) -> Capacity:
    """Trace what the lines need beside the `planned` trial. Several samples are taken as padded."""
    rank, samples = rank_of(subject.spec.adapter), subject.train.samples
    other = SECOND_RANK if padded_rank(rank) == MAX_RANK else MAX_RANK
    at_other = predict_ranks(subject, [other])[other]
    low = samples if samples > 1 else 2
    known = planned.training if samples > 1 else training_trace(_with_samples(subject, low))
    more = segments_like(_with_samples(subject, 2 * low), known, low)
    return Capacity(
        subject=subject,
        planned=planned,
        over_samples=_lines(low, known.segments, 2 * low, more),
        over_ranks=_lines(
            padded_rank(rank),
            _peaks(subject, planned),
            padded_rank(other),
            _peaks(subject, at_other),
        ),
    )


def _peaks(subject: PlanSubject, prediction: Prediction) -> dict[str, int]:
    """Peaks of load, evaluation, a validation in training, and each segment of the step."""
    trace, phases = prediction.training, prediction.plan.peak_bytes
    workspace = peak_of(trace, subject) - max(trace.segments.values())
    step = {name: peak + workspace for name, peak in trace.segments.items()}
    others = {phase: phases[phase] for phase in ("load", "evaluate")}
    return {**step, **others, "validation": prediction.validation_bytes}


def _lines(
    x1: int, first: Mapping[str, int], x2: int, second: Mapping[str, int]
) -> dict[str, Affine]:
    return {
        name: affine_through((x1, first[name]), (x2, second[name]))
        for name in first.keys() & second.keys()
    }


def _with_samples(subject: PlanSubject, samples: int) -> PlanSubject:
    batch = replace(subject.train, samples=samples, padded=samples > 1)
    return replace(subject, train=batch)


def largest_micro_batch(capacity: Capacity, limit_bytes: float, check: bool = False) -> int:
    """Samples of the largest micro-batch with which the trial fits; 0 where none does.

    Args:
        check: trace the answer, and lower it until its trace fits.
    """
    subject, plan = capacity.subject, capacity.planned.plan
    others = (plan.peak_bytes["load"], plan.peak_bytes["evaluate"])
    if max(*others, capacity.planned.validation_bytes) > limit_bytes:
        return 0
    training = capacity.planned.training
    workspace = peak_of(training, subject) - max(training.segments.values())
    found = largest_within(capacity.over_samples, limit_bytes - workspace) or 0
    if found <= 1 and subject.train.samples == 1:
        return int(plan.peak_bytes["train"] <= limit_bytes)
    while check and found > 0 and not _trains(_with_samples(subject, found), limit_bytes):
        found -= 1
    return found


def largest_rank(capacity: Capacity, limit_bytes: float, check: bool = False) -> int:
    """The largest rank, at most 512, with which the trial fits; 0 where none does. Training pads
    others up to the next of these."""
    bound = largest_within(capacity.over_ranks, limit_bytes)
    fitting = [rank for rank in STACK_RANKS if bound is None or rank <= bound]
    while check and fitting and not _fits(at_rank(capacity.subject, fitting[-1]), limit_bytes):
        del fitting[-1]
    return fitting[-1] if fitting else 0


def _trains(subject: PlanSubject, limit_bytes: float) -> bool:
    return peak_of(training_trace(subject), subject) <= limit_bytes


def _fits(subject: PlanSubject, limit_bytes: float) -> bool:
    return needed_bytes(plan_memory(subject)) <= limit_bytes
