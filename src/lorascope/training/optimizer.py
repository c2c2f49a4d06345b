"""AdamW over a pack: one vector and one parameter group a trial, so that nothing is shared. A trial
whose values learn at several rates has a group for each stretch of its vector with one rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import get_scheduler

from lorascope.config import TrainConfig
from lorascope.training.rates import RatedPart

FIRST_SCALE, GROWTH_STEPS = 2.0**16, 2000
"""As torch.amp.GradScaler starts, and when it doubles."""
CLIP_EPSILON = 1e-6
"""torch.nn.utils.clip_grad_norm_'s."""


PART = "part"
"""Key of a parameter group that holds a part of a trial's vector: that part."""


def adamw(
    rows: Sequence[nn.Parameter],
    trains: Sequence[TrainConfig],
    rated: Sequence[Sequence[RatedPart]] = (),
) -> torch.optim.AdamW:
    """Groups in the pack's order, each with its trial's learning rate and weight decay; one for
    each part that `rated`, from `rates_of`, names of a trial. Fused, as transformers' default is:
    one pass over the memory, and no copies."""
    groups: list[dict[str, Any]] = []
    for trial, (row, train) in enumerate(zip(rows, trains, strict=True)):
        whole: dict[str, Any] = {
            "params": [row],
            "lr": train.learning_rate,
            "weight_decay": train.weight_decay,
        }
        parts = rated[trial] if rated else ()
        for part in parts:
            own = nn.Parameter(row.detach()[part.start : part.end])
            rates = {
                "lr": whole["lr"] * part.rate.times,
                "weight_decay": whole["weight_decay"] * part.rate.decay_times,
            }
            groups.append(whole | rates | {"params": [own], PART: part})
        if not parts:
            groups.append(whole)
    # The polynomial schedule reads the default, which all trials share there.
    return torch.optim.AdamW(groups, lr=trains[0].learning_rate, fused=True)


def _by_trial(optimizer: torch.optim.Optimizer) -> list[list[dict[str, Any]]]:
    """The groups of each trial, in the pack's order."""
    trials: list[list[dict[str, Any]]] = []
    for group in optimizer.param_groups:
        if PART not in group or group[PART].start == 0:
            trials.append([])
        trials[-1].append(group)
    return trials


def hand_gradients(optimizer: torch.optim.Optimizer, rows: Sequence[nn.Parameter]) -> None:
    """Give the parts of a trial's vector its gradient, or none where it has none."""
    for row, groups in zip(rows, _by_trial(optimizer), strict=True):
        for group in groups:
            if PART in group:
                (own,), part = group["params"], group[PART]
                own.grad = None if row.grad is None else row.grad[part.start : part.end]


def learning_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The present rate of each trial, whatever its parts multiply it by."""
    return [_whole_rate(groups) for groups in _by_trial(optimizer)]


def _whole_rate(groups: Sequence[dict[str, Any]]) -> float:
    for group in groups:
        if PART not in group or group[PART].rate.times == 1:
            return float(group["lr"])
    first: RatedPart = groups[0][PART]
    return float(groups[0]["lr"]) / first.rate.times


def schedule_of(
    train: TrainConfig, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rates' schedule over so many steps, the first of them warming up."""
    schedule: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        train.schedule,
        optimizer,
        num_warmup_steps=math.ceil(steps * train.warmup_fraction),
        num_training_steps=steps,
    )
    return schedule


def rows_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The vector of each group, in the pack's order: a trial's, or a part of it."""
    return [group["params"][0] for group in optimizer.param_groups]


def moment_bytes(parameters: Sequence[int], optimizer: torch.optim.Optimizer) -> list[int]:
    """Bytes of AdamW's two moments a parameter and of its counters, for each trial.

    Args:
        parameters: of each trial, padding excluded.
    """
    sizes = []
    for groups, count in zip(_by_trial(optimizer), parameters, strict=True):
        rows = [group["params"][0] for group in groups]
        padded, moments, counters = sum(row.numel() for row in rows), 0, 0
        for row in rows:
            state = [v for v in optimizer.state[row].values() if isinstance(v, Tensor)]
            moments += sum(value.nbytes for value in state if value.numel() == row.numel())
            counters += sum(value.nbytes for value in state if value.numel() != row.numel())
        sizes.append(moments * count // padded + counters)
    return sizes


def clip(rows: Sequence[nn.Parameter], limits: Sequence[float]) -> Tensor:
    """Scale each trial's gradient down to its own limit (0: none), as clip_grad_norm_ does but in
    fewer calls; the norms before [trials], NaN where there is no gradient."""
    none = torch.full((), torch.nan, device=rows[0].device)
    norms = []
    for row, limit in zip(rows, limits, strict=True):
        norms.append(none if row.grad is None else torch.linalg.vector_norm(row.grad))
        if row.grad is not None and limit:
            row.grad.mul_((limit / (norms[-1] + CLIP_EPSILON)).clamp(max=1.0))
    return torch.stack(norms)


class LossScales:
    """torch.amp.GradScaler's rule for each trial by itself: with one scale for all, a trial whose
    gradients overflow would skip the step of all."""

    def __init__(self, trials: int, device: torch.device | str) -> None:
        self.scales = torch.full((trials,), FIRST_SCALE, device=device)
        self.good_steps = torch.zeros(trials, device=device)

    def unscale(self, rows: Sequence[nn.Parameter]) -> None:
        """Divide the gradients by their scales; a trial whose gradient is not finite gets none,
        so that the optimizer passes it over, and half the scale."""
        gradients = [row.grad for row in rows if row.grad is not None]
        for gradient, scale in zip(gradients, self.scales.unbind(), strict=True):
            gradient.div_(scale)
        # A norm takes no copy of the gradient.
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        finite = torch.stack(norms).isfinite()
        for row, is_finite in zip(rows, finite.tolist(), strict=True):
            if not is_finite:
                row.grad = None
        self.good_steps = torch.where(finite, self.good_steps + 1, 0)
        grows = self.good_steps >= GROWTH_STEPS
        self.scales = torch.where(finite, self.scales, self.scales / 2)
        self.scales = torch.where(grows, self.scales * 2, self.scales)
        self.good_steps = torch.where(grows, 0, self.good_steps)
