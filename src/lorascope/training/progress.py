"""Progress of a pack, reported by the training to its observers; no heavy import on either side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lorascope.records import LossPoint, ValidationPoint


@dataclass(frozen=True)
class StepReport:
    """A step is done. Reading losses waits for the device: they are of the last step that was
    logged."""

    step: int
    steps: int
    losses_nats: list[float]
    """Loss of each trial; empty before the first logged step."""
    tokens: int
    """Tokens that all trials have read, those before a resume included."""
    points: list[LossPoint | None] = field(default_factory=list)
    """What this step added to each trial's log; empty where it added nothing."""
    validations: list[ValidationPoint | None] = field(default_factory=list)
    """The same of the validations after this step."""


@dataclass(frozen=True)
class ValidationReport:
    """All steps are done, and so many trials are saved and validated."""

    validated: int
    trials: int


Progress = Callable[[StepReport | ValidationReport], bool]
"""Whether the pack should be saved now, and its training stop."""


def unwatched(report: StepReport | ValidationReport) -> bool:
    """A progress that is neither shown nor stopped."""
    return False


class Stopped(Exception):
    """A training that was asked to stop; its checkpoint is written, if it had begun."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(step, steps)
        self.step = step
        self.steps = steps

    def __str__(self) -> str:
        # One that was still waiting may not know how many steps an epoch has.
        return f"saved at step {self.step}/{self.steps}" if self.step else "stopped before it began"
