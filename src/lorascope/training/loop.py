"""transformers' Trainer over a pack: its loop, data loading and schedule, with a trial axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from lorascope.config import TrainConfig
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.meters.batches import BatchMemory
from lorascope.training.batches import PackedOrder
from lorascope.training.checkpoint import load_checkpoint, save_checkpoint
from lorascope.training.linear import step_seed
from lorascope.training.log import PackLog
from lorascope.training.optimizer import LossScales, adamw, clip, rows_of
from lorascope.training.pack import PackedModel


class PackedTrainer(Trainer):  # type: ignore[misc]
    """Trains all trials of a pack step by step; each is clipped, scheduled and counted alone.

    The random numbers of a step come from the trials' seeds and the step, so that a resumed pack
    needs no generator's state.
    """

    def __init__(
        self,
        memory: BatchMemory,
        log: PackLog,
        trains: Sequence[TrainConfig],
        seeds: Sequence[int],
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        # compute_loss divides by the labels of the whole accumulated batch.
        self.loss_is_scaled_for_ga = True
        self.scales: LossScales | None = None
        if self.accelerator.scaler is not None:
            # accelerate's own would tie the trials together.
            self.accelerator.scaler = None
            self.scales = LossScales(len(seeds), self.args.device)
        self._memory, self._log = memory, log
        self._trains, self._seeds = trains, seeds
        self._micro_batch = (-1, 0)

    @property
    def _pack(self) -> PackedModel:
        pack: PackedModel = self.model
        return pack

    def _get_train_sampler(self, train_dataset: Any = None) -> PackedOrder:
        return PackedOrder(len(self.train_dataset), self._seeds)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """Each trial's labels [trials] in all micro-batches of a step; no position precedes the
        first."""
        trials = len(self._seeds)
        counts = [
            (batch["labels"][:, 1:] != IGNORED_LABEL).view(trials, -1).sum(1)
            for batch in batch_samples
        ]
        return torch.stack(counts).sum(0).to(device)

    def training_step(self, model: nn.Module, inputs: Any, *rest: Any, **named: Any) -> Any:
        """One micro-batch of every trial."""
        step, micro_batch = self.state.global_step, self._micro_batch
        self._micro_batch = (step, micro_batch[1] + 1 if micro_batch[0] == step else 0)
        self._pack.shape.draw = self._micro_batch
        # A base with dropout of its own draws from the global generator.
        torch.manual_seed(step_seed(self._seeds[0], *self._micro_batch))
        with self._memory.micro_batch(model, self.optimizer, inputs, len(self._seeds)):
            return super().training_step(model, inputs, *rest, **named)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:  # fmt: skip
        """The sum of the trials' losses: each trial's gradient is that of its own mean."""
        losses = model(**inputs, divisors=num_items_in_batch)
        self._log.add_batch(losses.detach(), inputs["attention_mask"])
        return losses.sum() if self.scales is None else (losses * self.scales.scales).sum()

    def create_optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
        """AdamW with a group a trial."""
        self.optimizer = adamw(self._pack.stacks, self._trains)
        self._memory.watch_steps(self.model, self.optimizer)
        return self.optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        rows = rows_of(self.optimizer)
        if self.scales is not None:
            self.scales.unscale(rows)
        for row, stopped in zip(rows, self._log.stopped, strict=True):
            if stopped is not None:
                # The optimizer passes it over; the others' batches stay what they are.
                row.grad = None
        norms = clip(rows, [train.max_gradient_norm for train in self._trains])
        self._log.note_step(norms, [group["lr"] for group in self.optimizer.param_groups])
        return norms.max()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        save_checkpoint(self, Path(self.args.output_dir), self._log)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Values come with the optimizer's, which exists later."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_checkpoint(self, Path(checkpoint), self._log)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Loss scales come with the values; a pickle of that name is not ours."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """There is none."""
