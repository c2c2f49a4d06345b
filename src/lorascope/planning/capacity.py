"""The largest micro-batch and rank that can be trained in a given memory: lines through traces,
then checked. Scoring has batches of its own: whether they fit too, a plan's `needed_bytes` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lorascope.adapters.kinds import rank_of
from lorascope.config.bounds import MAX_RANK
from lorascope.counting.parameters import padded_rank
from lorascope.objectives.kinds import objective_of
from lorascope.planning.arithmetic import Affine, largest_within, lines_through
from lorascope.planning.depth import segments_like, training_trace
from lorascope.planning.plan import (
    Prediction,
    at_rank,
    needed_bytes,
    peak_of,
    plan_memory,
    predict_ranks,
    workspace_bytes,
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
        over_samples=lines_through(known.segments, more, low, 2 * low),
        over_ranks=lines_through(
            _peaks(subject, planned),
            _peaks(subject, at_other),
            padded_rank(rank),
            padded_rank(other),
        ),
    )


def _peaks(subject: PlanSubject, prediction: Prediction) -> dict[str, int]:
    """Peaks of load, evaluation, a validation in training, and each segment of the step."""
    segments, phases = prediction.training.segments, prediction.plan.peak_bytes
    step = {name: peak + workspace_bytes(subject.device) for name, peak in segments.items()}
    others = {phase: phases[phase] for phase in ("load", "evaluate")}
    return {**step, **others, "validation": prediction.validation_bytes}


def _with_samples(subject: PlanSubject, samples: int) -> PlanSubject:
    batch = replace(subject.train, samples=samples, padded=samples > 1)
    return replace(subject, train=batch)


def largest_micro_batch(capacity: Capacity, limit_bytes: float, check: bool = False) -> int:
    """Samples of the largest micro-batch with which the trial can be trained; 0 where none is.

    Args:
        check: trace the answer, and lower it until its trace fits.
    """
    subject, plan = capacity.subject, capacity.planned.plan
    others = (plan.peak_bytes["load"], plan.peak_bytes["evaluate"])
    if max(*others, capacity.planned.validation_bytes) > limit_bytes:
        return 0
    tensor_bytes = limit_bytes - workspace_bytes(subject.device)
    sequences = objective_of([subject.training]).sequences
    found = (largest_within(capacity.over_samples, tensor_bytes) or 0) // sequences
    if found <= 1 and subject.train.samples == sequences:
        return int(plan.peak_bytes["train"] <= limit_bytes)
    while check and found and not _trains(_with_samples(subject, sequences * found), limit_bytes):
        found -= 1
    return found


def largest_rank(capacity: Capacity, limit_bytes: float, check: bool = False) -> int:
    """The largest rank, at most 512, with which the trial can be trained; 0 where none is. Training
    pads others up to the next of these."""
    bound = largest_within(capacity.over_ranks, limit_bytes)
    fitting = [rank for rank in STACK_RANKS if bound is None or rank <= bound]
    while check and fitting:
        if needed_bytes(plan_memory(at_rank(capacity.subject, fitting[-1]))) <= limit_bytes:
            break
        del fitting[-1]
    return fitting[-1] if fitting else 0


def _trains(subject: PlanSubject, limit_bytes: float) -> bool:
    return peak_of(training_trace(subject), subject) <= limit_bytes
