"""The largest micro-batch and rank that fit a given memory: lines through traces, then checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lorascope.config_rules import MAX_RANK
from lorascope.maths.memory import Affine, affine_through, largest_within
from lorascope.memory_plan import at_rank, peak_of, training_trace
from lorascope.memory_trace import Trace
from lorascope.plan_subject import PlanSubject

SECOND_RANK = 8
"""Through which the line goes when the planned rank is the largest there is."""


@dataclass(frozen=True)
class Capacity:
    """Every segment of a training step as a line over micro-batch size, and over rank."""

    subject: PlanSubject
    planned_peak_bytes: int
    over_samples: Mapping[str, Affine]
    over_ranks: Mapping[str, Affine]
    workspace_bytes: int


def capacity_of(subject: PlanSubject, planned: Trace) -> Capacity:
    """Trace what the lines need beside the `planned` step. Several samples are taken as padded."""
    rank, samples = subject.spec.lora.rank, subject.train.samples
    other = SECOND_RANK if rank == MAX_RANK else MAX_RANK
    low = (samples, planned) if samples > 1 else (2, training_trace(_with_samples(subject, 2)))
    high = (2 * low[0], training_trace(_with_samples(subject, 2 * low[0])))
    return Capacity(
        subject=subject,
        planned_peak_bytes=peak_of(planned, subject),
        over_samples=_lines(*low, *high),
        over_ranks=_lines(rank, planned, other, training_trace(at_rank(subject, other))),
        workspace_bytes=peak_of(planned, subject) - max(planned.segments.values()),
    )


def _lines(x1: int, first: Trace, x2: int, second: Trace) -> dict[str, Affine]:
    return {
        name: affine_through((x1, first.segments[name]), (x2, second.segments[name]))
        for name in first.segments.keys() & second.segments.keys()
    }


def _with_samples(subject: PlanSubject, samples: int) -> PlanSubject:
    batch = replace(subject.train, samples=samples, padded=samples > 1)
    return replace(subject, train=batch)


def largest_micro_batch(capacity: Capacity, limit_bytes: float, check: bool = False) -> int:
    """Samples of the largest micro-batch that trains within the limit; 0 where none does.

    Args:
        check: trace the answer, and lower it until its trace fits.
    """
    found = largest_within(capacity.over_samples, limit_bytes - capacity.workspace_bytes) or 0
    if found <= 1 and capacity.subject.train.samples == 1:
        return int(capacity.planned_peak_bytes <= limit_bytes)
    while check and found > 0 and not _fits(_with_samples(capacity.subject, found), limit_bytes):
        found -= 1
    return found


def largest_rank(capacity: Capacity, limit_bytes: float, check: bool = False) -> int:
    """The largest rank, at most 512, that trains within the limit; 0 where none does."""
    bound = largest_within(capacity.over_ranks, limit_bytes - capacity.workspace_bytes)
    found = MAX_RANK if bound is None else min(bound, MAX_RANK)
    while check and found > 0 and not _fits(at_rank(capacity.subject, found), limit_bytes):
        found -= 1
    return found


def _fits(subject: PlanSubject, limit_bytes: float) -> bool:
    return peak_of(training_trace(subject), subject) <= limit_bytes
