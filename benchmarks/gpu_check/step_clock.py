"""Times the steps of a training: ours, or a bare Trainer's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorascope.machine.devices import Device
from lorascope.training.loop import StepEnd


class OutOfTime(Exception):
    """The deadline came before a step was measured."""


@dataclass(frozen=True)
class Effort:
    """Steps of a measurement."""

    warm_up_steps: int = 3
    """They load kernels, find the loss scale of FP16 and make the optimizer's state."""
    measured_steps: int = 5


@dataclass(frozen=True)
class StepTimes:
    """What steps took and needed."""

    step_seconds: float
    """Median."""
    lowest_seconds: float
    highest_seconds: float
    peak_bytes: int | None
    """Bytes that tensors took at most, by the allocator of a CUDA device."""
    reserved_bytes: int | None
    """Bytes that the allocator took from the device at most."""


def synchronize(device: Device) -> None:
    """Wait until the device has done all that it was given."""
    if device.kind == "cuda":
        torch.cuda.synchronize()


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Reads the clock after each step, when the device has done it: a step's seconds are those from
    the end of the one before, so that the loop's own work and its batches count. It is an observer
    of our loop and a callback of the Trainer.

    Args:
        until: `time.monotonic()` after which no further step is begun.
    """

    def __init__(self, device: Device, effort: Effort, until: float) -> None:
        self.steps = effort.warm_up_steps + effort.measured_steps
        self._device, self._warm_up, self._until = device, effort.warm_up_steps, until
        self._ends: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        control.should_training_stop |= self._is_over()

    def after_step(self, end: StepEnd) -> None:
        """The same in our loop."""
        is_over = self._is_over()
        end.stop = end.last or is_over

    def _is_over(self) -> bool:
        """Note the end of a step; whether the time is over."""
        synchronize(self._device)
        self._ends.append(time.perf_counter())
        if self._device.kind == "cuda" and len(self._ends) == self._warm_up:
            torch.cuda.reset_peak_memory_stats()
        return time.monotonic() > self._until

    def measured(self) -> StepTimes:
        """What the steps took, and on CUDA the allocator's peaks.

        Raises:
            OutOfTime: the deadline came before a step was measured.
        """
        ends = self._ends[self._warm_up - 1 :]
        seconds = [end - start for start, end in pairwise(ends)]
        if not seconds:
            raise OutOfTime(f"the time was over after {len(self._ends)} steps")
        on_cuda = self._device.kind == "cuda"
        return StepTimes(
            median(seconds), min(seconds), max(seconds),
            torch.cuda.max_memory_allocated() if on_cuda else None,
            torch.cuda.max_memory_reserved() if on_cuda else None,
        )  # fmt: skip
