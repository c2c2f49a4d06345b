"""The training samples that some methods read before the first step, as a trial has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn

from lorascope.adapters.stack import step_seed
from lorascope.machine.devices import TORCH_DTYPES, Device, autocast
from lorascope.objectives.evaluation import evaluation_mode, forward_of
from lorascope.objectives.kinds import TokenBatch, objective_of
from lorascope.quantizers.loading import compute_precision
from lorascope.training.batches import PackData
from lorascope.training.trial_plan import PackPlan


@dataclass(frozen=True)
class TrialSamples:
    """The first training samples of one trial of a pack."""

    plan: PackPlan
    data: PackData
    device: Device
    trial: int

    @property
    def count(self) -> int:
        """How many it reads."""
        return self.plan.trials[self.trial].settings.reads_samples()

    def batches(self, at_once: int | None = None) -> Iterator[TokenBatch]:
        """In the trial's own order, on its device."""
        for batch in self.data.first(self.trial, self.count, at_once):
            yield batch.to(torch.device(self.device.kind))

    def loss(self, model: PeftModel, batch: TokenBatch) -> Tensor:
        """The batch's summed loss [] with gradients, as a step has it: what dropout the base has of
        its own is on, and each batch draws it from the trial's seed."""
        model.train()
        if self.plan.train.gradient_checkpointing:
            model.get_base_model().activation_checkpointing_enable()
        torch.manual_seed(step_seed(self.plan.trials[self.trial].seed, 0, 0))
        objective = objective_of([self.plan.trials[self.trial].train])
        precision = compute_precision(self.plan.quant, self.device)
        with autocast(self.device.kind, TORCH_DTYPES[precision.value]):
            return objective.losses(forward_of(model), batch).summed.sum()

    def read(self, model: nn.Module, batch: TokenBatch) -> None:
        """The forward pass alone: the loss is not asked for."""
        with evaluation_mode(model):
            forward_of(model)(batch, batch.places)


def first_samples(plan: PackPlan, data: PackData, device: Device) -> list[TrialSamples | None]:
    """What each trial of a pack reads before its first step; None where that is nothing."""
    return [
        TrialSamples(plan, data, device, index) if trial.settings.reads_samples() else None
        for index, trial in enumerate(plan.trials)
    ]
