"""One step under torch's profiler: kernels that it launches, and the device's busy share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_check.step_clock import synchronize
from lorascope.machine.devices import Device
from lorascope.training.loop import StepEnd


@dataclass(frozen=True)
class StepProfile:
    """What one step made the device do."""

    launches: int
    """Kernels on CUDA; on a CPU torch's operations."""
    busy_share: float
    """Share of the step's time in which a kernel ran, or on a CPU an operation. The profiler slows
    the host down, so that the share is a lower bound."""
    step_seconds: float
    """Of the profiled step."""


class StepProfiler:
    """An observer that profiles the last step, after those that warm up."""

    def __init__(self, device: Device, warm_up_steps: int) -> None:
        self.steps = warm_up_steps + 1
        self._device = device
        activities = [ProfilerActivity.CPU]
        if device.kind == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile, self._started = profile(activities=activities), 0.0
        self._seconds = 0.0

    def after_step(self, end: StepEnd) -> None:
        """Begin before the last step, end after it."""
        synchronize(self._device)
        if end.step == self.steps - 1:
            self._profile.start()
            self._started = time.perf_counter()
        elif end.step == self.steps:
            self._seconds = time.perf_counter() - self._started
            self._profile.stop()

    def measured(self) -> StepProfile:
        """What was seen; call it after the training."""
        on_cuda = self._device.kind == "cuda"
        # Annotated ranges, such as the optimizer's step, are no kernels.
        events: list[Any] = [
            event
            for event in self._profile.events() or []  # type: ignore[no-untyped-call]
            if event.device_type.name == self._device.kind.upper() and not event.is_user_annotation
        ]
        tops = events if on_cuda else [event for event in events if event.cpu_parent is None]
        spans = [(event.time_range.start, event.time_range.end) for event in tops]
        busy = covered(spans) / 1e6
        return StepProfile(len(events), busy / self._seconds, self._seconds)


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of what the spans (start, end) cover together; two at once count once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
