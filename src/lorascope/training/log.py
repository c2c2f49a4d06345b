"""What happens around each training step of a pack: losses are kept, progress told, time taken."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorascope.records import LossPoint, ValidationPoint
from lorascope.training.progress import Progress, StepReport


class Diverged(Exception):
    """The loss or the adapter became NaN or infinite."""


@dataclass(frozen=True)
class Effort:
    """What a trial was trained for, and what that took since the training began or went on."""

    step: int
    """Its last."""
    first_step: int
    """Where the training went on; 0 where it began."""
    tokens: int
    """That went through the model in all steps, padding apart."""
    first_tokens: int
    """Those before `first_step`."""
    train_seconds: float
    """Of the pack's steps."""
    validation_seconds: float
    """Of the trial's own validations while it was trained."""


class PackLog:
    """Each trial's losses and tokens, summed on the device and read now and then."""

    def __init__(self, trials: int, device: torch.device | str) -> None:
        self.points: list[list[LossPoint]] = [[] for _ in range(trials)]
        self.diverged_at: list[int | None] = [None] * trials
        self.validations: list[list[ValidationPoint]] = [[] for _ in range(trials)]
        self.stopped: list[Effort | None] = [None] * trials
        """Of the trials that stopped early."""
        self._sums = torch.zeros(trials, device=device)
        self._tokens = torch.zeros(trials, dtype=torch.int64, device=device)
        self._norms = torch.zeros(trials, device=device)
        self._rates: list[float] = []
        self._logged_step = 0

    @property
    def tokens(self) -> list[int]:
        """That went through the model for each trial, padding apart."""
        counts: list[int] = self._tokens.tolist()
        ended = zip(counts, self.stopped, strict=True)
        return [count if stopped is None else stopped.tokens for count, stopped in ended]

    @property
    def left(self) -> list[int]:
        """The trials that have neither diverged nor stopped early."""
        ended = zip(self.diverged_at, self.stopped, strict=True)
        return [index for index, own in enumerate(ended) if own == (None, None)]

    def add_batch(self, losses: Tensor, mask: Tensor) -> None:
        """Add a micro-batch's losses [trials]; mask [trials x samples, tokens]."""
        self._sums += losses
        self._tokens += mask.view(len(losses), -1).sum(1)

    def note_step(self, norms: Tensor, rates: Sequence[float]) -> None:
        """The gradients' norms before clipping, and the learning rates, of the step at hand."""
        self._norms, self._rates = norms, list(rates)

    def close_interval(self, step: int) -> list[float]:
        """Make a point of the steps since the last one: the mean loss of each trial; one that has
        stopped early keeps its last."""
        steps = step - self._logged_step
        losses = [total / steps for total in self._sums.tolist()]
        norms = self._norms.tolist()
        for index in self.left:
            self._add_point(index, step, losses[index], norms[index])
        self._sums.zero_()
        self._logged_step = step
        return [
            loss if stopped is None else points[-1].loss_nats
            for loss, stopped, points in zip(losses, self.stopped, self.points, strict=True)
        ]

    def stop(self, index: int, effort: Effort) -> None:
        """A trial is trained no more; its last point is of the steps since the one before."""
        loss = self._sums[index].item() / (effort.step - self._logged_step)
        self._add_point(index, effort.step, loss, self._norms[index].item())
        if self.diverged_at[index] is None:
            self.stopped[index] = effort

    def _add_point(self, index: int, step: int, loss_nats: float, norm: float) -> None:
        if not math.isfinite(loss_nats):
            self.diverged_at[index] = step
            return
        known = norm if math.isfinite(norm) else None
        self.points[index].append(LossPoint(step, loss_nats, self._rates[index], known))

    def state(self) -> dict[str, Any]:
        """All of it as JSON, exactly: a float32 is a Python float, which JSON keeps."""
        return {
            "points": [[asdict(point) for point in points] for points in self.points],
            "diverged_at": self.diverged_at,
            "validations": [[asdict(point) for point in points] for points in self.validations],
            "stopped": [None if effort is None else asdict(effort) for effort in self.stopped],
            "sums": [value if math.isfinite(value) else None for value in self._sums.tolist()],
            "tokens": self.tokens,
            "logged_step": self._logged_step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self.points = [[LossPoint(**point) for point in points] for points in state["points"]]
        self.diverged_at = list(state["diverged_at"])
        self.validations = [[ValidationPoint(**p) for p in own] for own in state["validations"]]
        self.stopped = [None if own is None else Effort(**own) for own in state["stopped"]]
        sums = [math.nan if value is None else value for value in state["sums"]]
        self._sums.copy_(torch.tensor(sums))
        self._tokens.copy_(torch.tensor(state["tokens"]))
        self._logged_step = int(state["logged_step"])


class TrainingWatch(TrainerCallback):  # type: ignore[misc]
    """Times the steps, tells progress, and ends a training in which every trial diverged or stopped
    early, or whose progress asks for it."""

    def __init__(self, log: PackLog, log_every_steps: int, progress: Progress) -> None:
        self.first_step = 0
        self.first_tokens = [0] * len(log.points)
        self.validation_seconds = [0.0] * len(log.points)
        """Of each trial, in which no step was trained."""
        self.stopped = False
        """Whether steps are left that somebody asked not to train now."""
        self.log, self._every = log, log_every_steps
        self._progress = progress
        self._started = self._ended = 0.0
        self._losses_nats: list[float] = []
        self._tokens = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """After a resume the state says where the former run had got to."""
        self.first_step = state.global_step
        self.first_tokens = self.log.tokens
        self._started = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The last step is logged whatever the interval, and not kept as a checkpoint: resuming
        there would train nothing. Nor is one after which no trial is left."""
        step, last = state.global_step, state.global_step >= state.max_steps
        if last or step % self._every == 0:
            self._losses_nats = self.log.close_interval(step)
            self._tokens = sum(self.log.tokens)
        if not self.log.left:
            control.should_training_stop = True
        report = StepReport(step, state.max_steps, self._losses_nats, self._tokens)
        if self._progress(report) and not last and not control.should_training_stop:
            self.stopped = True
            control.should_save = control.should_training_stop = True
        if last or not self.log.left:
            control.should_save = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._ended = time.perf_counter()

    def effort(self, index: int, step: int) -> Effort:
        """Of a trial whose last step is `step`, unless it stopped before."""
        known = self.log.stopped[index]
        if known is not None:
            return known
        elapsed = (self._ended or time.perf_counter()) - self._started
        return Effort(
            step=step,
            first_step=self.first_step,
            tokens=self.log.tokens[index],
            first_tokens=self.first_tokens[index],
            train_seconds=elapsed - sum(self.validation_seconds),
            validation_seconds=self.validation_seconds[index],
        )
