"""Validations of a pack's trials while they are trained: the best weights are kept, and a trial
that gets no better stops.

Each trial is validated by itself, as plain PEFT has it, the base's own layers in place: its loss is
to the bit the one that its record ends with, whatever its company. A trial that has stopped stays
in the pack with its best weights, and no step changes them: its rows are still computed, since the
others' batches, and so their bits, would depend on its end if they were not.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from lorascope.data.rows import read_rows
from lorascope.meters.batches import BatchMemory
from lorascope.meters.tracker import persistent_tensors
from lorascope.objectives.completion import completion_samples, loss_of_samples
from lorascope.records import ValidationPoint
from lorascope.training.adapter_check import adapted
from lorascope.training.early_stopping import best_of, has_stopped
from lorascope.training.log import TrainingWatch
from lorascope.training.pack import PackedModel
from lorascope.training.trial_plan import PackPlan


class PackValidation(TrainerCallback):  # type: ignore[misc]
    """Validates every so many steps and after the last. It goes before `TrainingWatch`, which ends
    a training that no trial is left in.

    Args:
        plan: its trials are in the pack's order.
    """

    def __init__(
        self,
        plan: PackPlan,
        pack: PackedModel,
        tokenizer: PreTrainedTokenizerBase,
        memory: BatchMemory,
        watch: TrainingWatch,
    ) -> None:
        self._plan, self._pack = plan, pack
        self._memory, self._watch = memory, watch
        self._log = watch.log
        rows = read_rows(plan.data / "validation.jsonl")
        self._samples = completion_samples(rows, tokenizer)
        self._measured: set[int] = set()
        if plan.train.patience:
            pack.keep_best()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any
    ) -> None:
        """One trial after the other, those that have ended apart."""
        step, last = state.global_step, state.global_step >= state.max_steps
        if not last and step % self._plan.train.validate_every_steps:
            return
        if args.device.type == "cuda":
            # What the device has still to do is the steps', not the validation's.
            torch.cuda.synchronize()
        for index in self._log.left:
            started = time.perf_counter()
            loss_nats = self._loss_nats(index, named["optimizer"])
            self._watch.validation_seconds[index] += time.perf_counter() - started
            known = loss_nats if math.isfinite(loss_nats) else None
            self._judge(index, ValidationPoint(step, known))

    def put_best(self) -> None:
        """Let the trials that are left have their best weights, where those are kept."""
        for index in self._log.left:
            self._put_best(index)

    def _loss_nats(self, index: int, optimizer: torch.optim.Optimizer) -> float:
        """Mean a token, of one trial's weights as they are."""
        trial = self._plan.trials[index]
        waiting = list(persistent_tensors(self._pack, optimizer))
        weights = self._pack.read(index)
        with self._pack.unpacked() as base, adapted(base, trial, weights) as model:
            first = index not in self._measured
            self._measured.add(index)
            measured = self._memory.validation(model, waiting, in_training=True)
            with measured if first else nullcontext():
                loss_sum, tokens = loss_of_samples(
                    model, self._samples, self._plan.evaluate_batch_size
                )
        return loss_sum / tokens

    def _judge(self, index: int, point: ValidationPoint) -> None:
        points, patience = self._log.validations[index], self._plan.train.patience
        points.append(point)
        if patience and best_of(points) is point:
            self._pack.best_rows()[index].copy_(self._pack.rows()[index].detach())
        if has_stopped(points, patience):
            self._put_best(index)
            self._log.stop(index, self._watch.effort(index, point.step))

    def _put_best(self, index: int) -> None:
        """Weights that never had a finite loss stay: they are found to have diverged."""
        if self._plan.train.patience and best_of(self._log.validations[index]) is not None:
            self._pack.rows()[index].data.copy_(self._pack.best_rows()[index])
