"""The training step and the loop around it: the file to read first.

    batches of a step -> train_step: forward, backward, clip, step -> observers

Several trials are trained at once, as a pack (see `training.pack`): what is written [trials] has a
number for each, and none of them depends on another trial's. A single trial is a pack of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from lorascope.machine.ranks import ALONE, Ranks
from lorascope.objectives.kinds import Objective, TokenBatch
from lorascope.training.batches import PackData
from lorascope.training.optimizer import LossScales, clip, hand_gradients, learning_rates
from lorascope.training.pack import PackedModel


class Meter(Protocol):
    """A meter of memory: each part of a step runs inside one of its contexts."""

    def micro_batch(
        self, pack: PackedModel, optimizer: torch.optim.Optimizer, batch: TokenBatch
    ) -> AbstractContextManager[None]:
        """Around the forward and backward pass of a micro-batch."""

    def optimizer_step(
        self, pack: PackedModel, optimizer: torch.optim.Optimizer
    ) -> AbstractContextManager[None]:
        """Around the optimizer's step."""


@dataclass(frozen=True)
class StepParts:
    """Model, objective, optimizer and meter, the same in every step of a training."""

    pack: PackedModel
    objective: Objective
    optimizer: torch.optim.Optimizer
    max_gradient_norms: Sequence[float]
    """Limit of each trial, for clipping; 0 is none."""
    autocast: Callable[[], AbstractContextManager[object]]
    """Context of a forward pass, for mixed precision."""
    meter: Meter
    scales: LossScales | None = None
    """Loss scales of the trials, where gradients are computed in FP16."""
    ranks: Ranks = ALONE
    """The processes that divide each batch's rows among them."""


@dataclass(frozen=True)
class StepNumbers:
    """Losses, norms, tokens and rates of one step."""

    losses: list[Tensor]
    """Losses [trials] of each micro-batch; they add up to each trial's mean loss."""
    gradient_norms: Tensor
    """Norms [trials] before clipping; NaN where the optimizer passes a trial over."""
    tokens: list[int]
    """Tokens of each trial in this step, padding excluded."""
    learning_rates: list[float]
    """Learning rate of each trial in this step."""
    metrics: list[Mapping[str, Tensor]] = field(default_factory=list)
    """Of each micro-batch, name -> [trials]; they add up to each trial's mean."""


def train_step(
    parts: StepParts, batches: Sequence[TokenBatch], step: int, stopped: Sequence[bool]
) -> StepNumbers:
    """One optimizer step of every trial that has not stopped.

    A trial's loss is the sum over all `batches` divided by their weight, so that how a batch is cut
    into micro-batches changes nothing but rounding. The trials' losses are added up for one
    backward pass, in which each trial's gradient is that of its own loss. Where several processes
    divide the rows, so are weights, losses and gradients sums over all of them.

    The host waits for the device in two places only: where FP16's loss scales ask which gradients
    are finite, and where a meter measures.
    """
    pack, optimizer, scales, ranks = parts.pack, parts.optimizer, parts.scales, parts.ranks
    weights = ranks.summed(torch.stack([batch.weights for batch in batches]).sum(0))
    losses, metrics = list[Tensor](), list[Mapping[str, Tensor]]()
    pack.zero_grad()
    for number, batch in enumerate(batches):
        pack.seed(step, number)
        with parts.meter.micro_batch(pack, optimizer, batch):
            with parts.autocast():
                found = parts.objective.losses(pack, batch)
                if batch.is_idle:
                    found = found.uncounted()
                means = found.summed / weights
            scaled = means if scales is None else means * scales.scales
            losses.append(ranks.summed(means.detach()))
            metrics.append({n: ranks.summed(own / weights) for n, own in found.metrics.items()})
            del means, found
            scaled.sum().backward()  # type: ignore[no-untyped-call]
            del scaled
    pack.gather_gradients()
    rows = pack.stack.rows
    ranks.add([row.grad for row in rows])
    if scales is not None:
        scales.unscale(rows)
    for row, has_stopped in zip(rows, stopped, strict=True):
        if has_stopped:
            row.grad = None
    norms = clip(rows, parts.max_gradient_norms)
    hand_gradients(optimizer, rows)
    rates = learning_rates(optimizer)
    with parts.meter.optimizer_step(pack, optimizer):
        optimizer.step()
    tokens = [sum(counts) for counts in zip(*(batch.tokens for batch in batches), strict=True)]
    return StepNumbers(losses, norms, ranks.add_counts(tokens), rates, metrics)


@dataclass
class StepEnd:
    """The end of a step, as observers get it in turn."""

    step: int
    """Steps done so far, this one included."""
    steps: int
    """Steps of the whole training."""
    numbers: StepNumbers
    stop: bool = False
    """Set by an observer: the training ends here."""
    save: bool = False
    """Set by an observer: a checkpoint is due, whatever the interval."""

    @property
    def last(self) -> bool:
        """Whether no step is left."""
        return self.step >= self.steps


class Observer(Protocol):
    """An observer of a training: log, validation, progress, checkpoints."""

    def after_step(self, end: StepEnd) -> None:
        """Called once a step, in the order in which `train` got its observers."""


def train(
    parts: StepParts,
    data: PackData,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    stopped: Callable[[], Sequence[bool]],
    observers: Sequence[Observer],
    first_step: int,
) -> int:
    """Train from `first_step` on, which is 0 unless a checkpoint was loaded.

    Args:
        stopped: tells which trials have stopped early, and are changed no more.
        observers: called after each step in their order.

    Returns:
        The step after which the training ended.
    """
    parts.pack.train()
    steps = data.steps
    for step in range(first_step, steps):
        cut = [parts.pack.without_padding(batch) for batch in data.micro_batches(step)]
        batches = [batch.to(parts.pack.device) for batch in cut]
        numbers = train_step(parts, batches, step, stopped())
        schedule.step()
        end = StepEnd(step + 1, steps, numbers)
        for observer in observers:
            observer.after_step(end)
        if end.stop:
            return end.step
    return steps
