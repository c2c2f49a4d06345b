"""Whether the trials of a grid fit, as a guard before anything is started."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from lorascope.config import DeviceKind
from lorascope.machine.devices import choose_device
from lorascope.machine.memory import MemoryLimit
from lorascope.planning.arithmetic import GIGABYTE, GPU_SIZES_GB, usable_bytes
from lorascope.planning.fits import limit_of_one, memory_limit, stated_limit
from lorascope.planning.plan import deciding_phase, needed_bytes
from lorascope.planning.planned import Planned
from lorascope.reporting import units
from lorascope.study.declared import trial_key, trial_name

FITS, DOES_NOT_FIT, UNKNOWN = 0, 1, 2
"""Exit codes of `lorascope plan`; 2 is also that of every command that cannot use what it got."""


@dataclass(frozen=True)
class Fit:
    """Whether one trial fits into a memory."""

    planned: Planned
    limit: MemoryLimit
    fits: bool | None
    """None where the trial could not be planned."""

    def content(self) -> dict[str, object]:
        """For `--json`: sizes in bytes."""
        config, prediction = self.planned.config, self.planned.prediction
        plan = None if prediction is None else prediction.plan
        return {
            # Its hash is known only after preparation.
            "trial": trial_name(trial_key(config), "").rstrip("-"),
            "model": self.planned.label,
            "quant": config.quant.name,
            "seed": config.seed,
            "fits": self.fits,
            "needed_bytes": None if plan is None else needed_bytes(plan),
            "deciding_phase": None if plan is None else deciding_phase(plan),
            "limit_bytes": self.limit.bytes,
            "limit_source": self.limit.source,
            "plan": None if plan is None else asdict(plan),
            "error": None if self.planned.error is None else str(self.planned.error),
        }


def fits_of(planned: Sequence[Planned]) -> list[Fit]:
    """Whether each of `planned` fits."""
    # What is free changes from moment to moment: all trials are held against one number.
    here = functools.cache(_limit_of_device)
    return [_fit(one, here) for one in planned]


def _fit(planned: Planned, here: Callable[[DeviceKind, int], MemoryLimit]) -> Fit:
    runtime, prediction = planned.config.runtime, planned.prediction
    stated_gb = runtime.memory_limit_gb
    limit = here(runtime.device, runtime.place) if stated_gb is None else stated_limit(stated_gb)
    if prediction is None:
        return Fit(planned, limit, None)
    limit = limit_of_one(limit, runtime.shard, prediction.plan.device)
    return Fit(planned, limit, needed_bytes(prediction.plan) <= limit.bytes)


def _limit_of_device(kind: DeviceKind, places: int) -> MemoryLimit:
    """That of the device that is planned for, where it is here, of several the least; else of the
    largest GPU that is listed."""
    if kind is DeviceKind.cpu or torch.cuda.device_count() >= places:
        return memory_limit(choose_device(kind, places), None)
    largest_gb = GPU_SIZES_GB[-1]
    return MemoryLimit(
        usable_bytes(largest_gb * GIGABYTE, "cuda"),
        f"what tensors can have of {largest_gb} GB, the largest GPU listed; "
        "runtime.memory_limit_gb names what they have of yours, runtime.device=cpu takes this "
        "computer's RAM",
    )


def exit_code(fits: Sequence[Fit]) -> int:
    """That of the worst: a trial that does not fit, then one that nothing is known of."""
    found = {one.fits for one in fits}
    return DOES_NOT_FIT if False in found else UNKNOWN if None in found else FITS


def verdict(fits: Sequence[Fit]) -> str:
    """One line for people."""
    counts = Counter(one.fits for one in fits)
    limits = units.listed(f"{units.size(o.limit.bytes)} ({o.limit.source})" for o in fits)
    parts = [
        f"{words} {counts[answer]}"
        for answer, words in ((False, "does not fit"), (None, "not planned"))
        if counts[answer]
    ]
    held = "; ".join([f"fits {counts[True]} of {len(fits)} trials", *parts])
    return f"\n{limits}: {held}.\n"
