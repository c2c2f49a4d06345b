"""What `plan` prints of a single trial: the largest micro-batch and rank in every memory size."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.planning.arithmetic import GIGABYTE, GPU_SIZES_GB
from lorascope.planning.capacity import capacity_of, largest_micro_batch, largest_rank
from lorascope.planning.plan import Prediction, needed_bytes
from lorascope.planning.planned import Planned
from lorascope.planning.table import deciding, usable
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table


@dataclass(frozen=True)
class CapacityRow:
    """What fits in one memory size."""

    memory_gb: float
    fits: str
    largest_micro_batch: int
    largest_rank: int


def capacities(planned: Planned, prediction: Prediction) -> Table[CapacityRow]:
    """For the memory that the configuration names the answers are traced, for others on a line."""
    assert planned.subject is not None
    plan, limit_gb = prediction.plan, planned.config.runtime.memory_limit_gb
    capacity = capacity_of(planned.subject, prediction)
    sizes = {size: usable(size, plan) for size in GPU_SIZES_GB}
    limits = sizes if limit_gb is None else {limit_gb: limit_gb * GIGABYTE}
    rows = [
        CapacityRow(
            memory_gb=size,
            fits="yes" if needed_bytes(plan) <= limit else f"no{deciding(plan)}",
            largest_micro_batch=largest_micro_batch(capacity, limit, limit_gb is not None),
            largest_rank=largest_rank(capacity, limit, limit_gb is not None),
        )
        for size, limit in limits.items()
    ]
    return Table(
        (
            Column("memory_gb", "Memory, GB", units.number),
            Column("fits", "Fits", right=False),
            Column("largest_micro_batch", "Largest micro-batch"),
            Column("largest_rank", "Largest rank (up to 512)"),
        ),
        rows,
    )
