"""Losses, tokens and times of each trial while a pack is trained, and the end of a training."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

from lorascope.records import LossPoint, ValidationPoint
from lorascope.training.loop import StepEnd
from lorascope.training.progress import Progress, StepReport


class Diverged(Exception):
    """The loss or the adapter became NaN or infinite."""


@dataclass(frozen=True)
class Effort:
    """Steps and tokens of a trial, and its seconds since the training began or went on."""

    step: int
    """The trial's last step."""
    first_step: int
    """The step from which the training went on; 0 where it began."""
    tokens: int
    """Tokens that went through the model in all steps, padding excluded."""
    first_tokens: int
    """Tokens before `first_step`."""
    train_seconds: float
    """Seconds of the pack's steps, validations excluded."""
    validation_seconds: float
    """Seconds of the trial's own validations while it was trained."""


class PackLog:
    """Each trial's losses and tokens. Losses are summed on the device. The host reads them, and
    waits, when a point is due.

    Args:
        every: steps between two points; the last step has one whatever the interval.
    """

    def __init__(self, trials: int, device: torch.device | str, every: int) -> None:
        self.points: list[list[LossPoint]] = [[] for _ in range(trials)]
        self.diverged_at: list[int | None] = [None] * trials
        self.validations: list[list[ValidationPoint]] = [[] for _ in range(trials)]
        self.stopped: list[Effort | None] = [None] * trials
        """Effort of each trial that stopped early."""
        self.last_losses_nats: list[float] = []
        """Each trial's loss at the last point; empty before the first."""
        self._every = every
        self._sums = torch.zeros(trials, device=device)
        self._metrics: dict[str, torch.Tensor] = {}
        """Name -> [trials]: what the objective shows beside the losses, summed as they are."""
        self._norms = torch.zeros(trials, device=device)
        self._rates: list[float] = []
        self._tokens = [0] * trials
        self._logged_step = 0

    @property
    def tokens(self) -> list[int]:
        """Tokens that went through the model for each trial, padding excluded."""
        pairs = zip(self._tokens, self.stopped, strict=True)
        return [count if effort is None else effort.tokens for count, effort in pairs]

    @property
    def left(self) -> list[int]:
        """The trials that have neither diverged nor stopped early."""
        pairs = zip(self.diverged_at, self.stopped, strict=True)
        return [index for index, pair in enumerate(pairs) if pair == (None, None)]

    def has_stopped(self) -> list[bool]:
        return [effort is not None for effort in self.stopped]

    def after_step(self, end: StepEnd) -> None:
        """Add up what the step says, and make a point where one is due."""
        numbers = end.numbers
        for losses in numbers.losses:
            self._sums += losses
        for metrics in numbers.metrics:
            for name, values in metrics.items():
                self._metrics[name] = self._metrics.get(name, 0) + values
        self._tokens = [a + b for a, b in zip(self._tokens, numbers.tokens, strict=True)]
        self._norms, self._rates = numbers.gradient_norms, numbers.learning_rates
        if end.last or end.step % self._every == 0:
            self._close_interval(end.step)

    def _close_interval(self, step: int) -> None:
        """Make a point of the steps since the last one: the mean loss of each trial."""
        # Read at once: the host waits for the device.
        every = self._sums, self._norms, *self._metrics.values()
        sums, norms, *others = torch.stack(every).tolist()
        steps = step - self._logged_step
        losses = [total / steps for total in sums]
        for index in self.left:
            values = [own[index] / steps for own in others]
            self._add_point(index, step, losses[index], norms[index], values)
        self._sums.zero_()
        self._metrics = {name: torch.zeros_like(own) for name, own in self._metrics.items()}
        self._logged_step = step
        self.last_losses_nats = [
            loss if effort is None else points[-1].loss_nats
            for loss, effort, points in zip(losses, self.stopped, self.points, strict=True)
        ]

    def stop(self, index: int, effort: Effort) -> None:
        """Train a trial no more. Its last point is of the steps since the one before."""
        if effort.step > self._logged_step:
            steps = effort.step - self._logged_step
            loss = self._sums[index].item() / steps
            values = [own[index].item() / steps for own in self._metrics.values()]
            self._add_point(index, effort.step, loss, self._norms[index].item(), values)
        if self.diverged_at[index] is None:
            self.stopped[index] = effort

    def _add_point(
        self, index: int, step: int, loss_nats: float, norm: float, values: Sequence[float]
    ) -> None:
        if not math.isfinite(loss_nats):
            self.diverged_at[index] = step
            return
        known = norm if math.isfinite(norm) else None
        named = zip(self._metrics, values, strict=True)
        metrics = {name: value for name, value in named if math.isfinite(value)}
        self.points[index].append(LossPoint(step, loss_nats, self._rates[index], known, metrics))

    def state(self) -> dict[str, Any]:
        """All of it as JSON, exactly: a float32 is a Python float, which JSON keeps."""
        return {
            "points": [[asdict(point) for point in points] for points in self.points],
            "diverged_at": self.diverged_at,
            "validations": [[asdict(point) for point in points] for points in self.validations],
            "stopped": [None if effort is None else asdict(effort) for effort in self.stopped],
            "sums": _as_json(self._sums),
            "metrics": {name: _as_json(own) for name, own in self._metrics.items()},
            "tokens": self.tokens,
            "logged_step": self._logged_step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.points = [[LossPoint(**point) for point in points] for points in state["points"]]
        self.diverged_at = list(state["diverged_at"])
        self.validations = [[ValidationPoint(**p) for p in own] for own in state["validations"]]
        self.stopped = [None if own is None else Effort(**own) for own in state["stopped"]]
        self._sums.copy_(_of_json(state["sums"]))
        sums = state.get("metrics", {})
        self._metrics = {name: _of_json(own).to(self._sums) for name, own in sums.items()}
        self._tokens = list(state["tokens"])
        self._logged_step = int(state["logged_step"])


def _as_json(values: torch.Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _of_json(values: Sequence[float | None]) -> torch.Tensor:
    return torch.tensor([math.nan if value is None else value for value in values])


PointT = TypeVar("PointT", LossPoint, ValidationPoint)


def made_at(step: int, curves: Sequence[Sequence[PointT]]) -> list[PointT | None]:
    """The last point of each curve where it is that of `step`; empty where none is."""
    last = [curve[-1] if curve and curve[-1].step == step else None for curve in curves]
    return last if any(last) else []


class TrainingWatch:
    """Times the steps, reports them, and ends a training in which every trial diverged or stopped
    early, or whose progress asks for it.

    Make one when the training starts, with the log of a checkpoint restored.
    """

    def __init__(self, log: PackLog, progress: Progress, first_step: int) -> None:
        self.log = log
        self.validation_seconds = [0.0] * len(log.points)
        """Seconds of each trial's validations, in which no step was trained."""
        self.asked_to_stop = False
        """Whether steps are left that somebody asked not to train now."""
        self._progress, self._first_step = progress, first_step
        self._first_tokens = log.tokens
        self._started = time.perf_counter()
        self._seconds: float | None = None

    def after_step(self, end: StepEnd) -> None:
        """Report the step. The last step, and one after which no trial is left, ends the training
        by itself: stopping there would leave nothing to go on with."""
        end.stop = end.last or not self.log.left
        losses, tokens = self.log.last_losses_nats, sum(self.log.tokens)
        points = made_at(end.step, self.log.points)
        validations = made_at(end.step, self.log.validations)
        report = StepReport(end.step, end.steps, losses, tokens, points, validations)
        asked = self._progress(report)
        if asked and not end.stop:
            self.asked_to_stop = end.stop = end.save = True

    def end(self) -> None:
        self._seconds = time.perf_counter() - self._started

    def effort(self, index: int, step: int) -> Effort:
        """Effort of a trial whose last step is `step`, unless it stopped before."""
        known = self.log.stopped[index]
        if known is not None:
            return known
        elapsed = time.perf_counter() - self._started if self._seconds is None else self._seconds
        return Effort(
            step=step,
            first_step=self._first_step,
            tokens=self.log.tokens[index],
            first_tokens=self._first_tokens[index],
            train_seconds=elapsed - sum(self.validation_seconds),
            validation_seconds=self.validation_seconds[index],
        )
