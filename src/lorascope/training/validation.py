"""Validation of single adapters as plain PEFT has them: while a pack is trained, and at its end.

Each trial is validated by itself, the base's own layers in place: on a CPU its loss is to the bit
the one that its record ends with, whatever its company. A trial that has stopped stays in the pack
with its best weights, and no step changes them: its rows are still computed, since the others'
batches, and so their bits, would depend on its end if they were not.

When a trial stops early is decided as by transformers' EarlyStoppingCallback with
load_best_model_at_end: a validation counts against a trial unless its loss is lower than all
before; after `patience` of them in a row the trial stops; and with patience the weights of the best
validation are kept, whether the trial stops or not. The last step is validated too.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lorascope.adapters.attach import attach_trained, detach, save_adapter
from lorascope.adapters.kinds import kind_of
from lorascope.adapters.stack import PackShape, Weights, adapted_layers, adapted_names
from lorascope.config import AdapterConfig
from lorascope.files.disk_faults import is_full_disk
from lorascope.files.layout import ADAPTER_FILES
from lorascope.files.store import sha256_of_files
from lorascope.machine.ranks import ALONE, Ranks
from lorascope.meters.batches import BatchMemory
from lorascope.meters.tracker import persistent_tensors
from lorascope.objectives.evaluation import summed_loss
from lorascope.objectives.kinds import Sample, objective_of
from lorascope.quantizers.torchao.rounding import Rounding
from lorascope.records import ValidationPoint
from lorascope.training.log import Diverged, TrainingWatch
from lorascope.training.loop import StepEnd, StepParts
from lorascope.training.pack import stacked_pack
from lorascope.training.rounded_merge import round_merged
from lorascope.training.trial_plan import PackPlan, TrialPlan


def best_of(points: Sequence[ValidationPoint]) -> ValidationPoint | None:
    """The first with the lowest loss; None where no loss is finite."""
    finite = [(point.loss_nats, point) for point in points if point.loss_nats is not None]
    return min(finite, key=lambda pair: pair[0])[1] if finite else None


def has_stopped(points: Sequence[ValidationPoint], patience: int) -> bool:
    """Whether there were so many validations since the best one; 0 is patience without end."""
    best = best_of(points)
    misses = len(points) if best is None else len(points) - 1 - list(points).index(best)
    return 0 < patience <= misses


class PackValidation:
    """Validates every so many steps and after the last one. As an observer it stands before
    `TrainingWatch`, which ends a training that no trial is left in.

    Args:
        plan: its trials are in the pack's order.
        samples: the validation split's.
        rounding: what merged weights become before they are computed with.
    """

    def __init__(
        self, plan: PackPlan, parts: StepParts, samples: Sequence[Sample], watch: TrainingWatch,
        memory: BatchMemory, rounding: Rounding | None = None,
    ) -> None:  # fmt: skip
        self._plan, self._parts, self._samples = plan, parts, samples
        self._memory, self._watch, self._log = memory, watch, watch.log
        self._rounding = rounding
        self._measured: set[int] = set()

    def after_step(self, end: StepEnd) -> None:
        """Validate one trial after the other, those left out that have diverged or stopped."""
        if not end.last and end.step % self._plan.train.validate_every_steps:
            return
        if self._parts.pack.device.type == "cuda":
            # What the device has still to do is the steps', not the validation's.
            torch.cuda.synchronize()
        for index in self._log.left:
            started = time.perf_counter()
            loss_nats = self._loss_nats(index)
            self._watch.validation_seconds[index] += time.perf_counter() - started
            known = loss_nats if math.isfinite(loss_nats) else None
            self._judge(index, ValidationPoint(end.step, known))

    def _loss_nats(self, index: int) -> float:
        """Mean loss a token, of one trial's weights as they are."""
        pack, trial = self._parts.pack, self._plan.trials[index]
        waiting = list(persistent_tensors(pack, self._parts.optimizer))
        weights = pack.stack.read(index)
        rounding = self._rounding
        if rounding is not None:
            # What is computed with in place of PEFT's own is a copy.
            waiting.extend(weights.values())
        with (
            pack.unpacked() as base,
            adapted(base, trial, weights) as model,
            as_served(model, trial, weights, rounding),
        ):
            first = index not in self._measured
            self._measured.add(index)
            measured = self._memory.validation(model, waiting, in_training=True)
            with measured if first else nullcontext(lambda batch: None) as before_batch:
                loss_sum, weight = summed_loss(
                    objective_of([trial.train]), model, self._samples,
                    self._plan.evaluate_batch_size, before_batch, self._parts.ranks,
                )  # fmt: skip
        return loss_sum / weight

    def _judge(self, index: int, point: ValidationPoint) -> None:
        points, patience = self._log.validations[index], self._plan.train.patience
        points.append(point)
        if patience and best_of(points) is point:
            pack = self._parts.pack
            pack.best_rows[index].copy_(pack.stack.rows[index].detach())
        if has_stopped(points, patience):
            self.restore_best(index)
            self._log.stop(index, self._watch.effort(index, point.step))

    def restore_best(self, index: int) -> None:
        """Give a trial its best weights, where those are kept. Weights that never had a finite loss
        stay: they are found to have diverged."""
        if self._plan.train.patience and best_of(self._log.validations[index]) is not None:
            pack = self._parts.pack
            pack.stack.rows[index].data.copy_(pack.best_rows[index])


class Unsaved(Exception):
    """An adapter that was trained, and that the disk has no room for."""


@dataclass(frozen=True)
class CheckedAdapter:
    """Size, digest and loss of a saved adapter, measured on its base alone."""

    trainable_parameters: int
    total_parameters: int
    adapter_bytes: int
    adapter_sha256: str
    validation_loss_nats: float
    seconds: float


def check_adapter(
    base: PreTrainedModel,
    plan: PackPlan,
    trial: TrialPlan,
    weights: Weights,
    others: list[Weights],
    samples: Sequence[Sample],
    memory: BatchMemory,
    rounding: Rounding | None = None,
    ranks: Ranks = ALONE,
) -> CheckedAdapter:
    """Save the adapter to `trial.adapter` and measure it; the base is bare again afterwards.

    Args:
        others: the pack's other adapters, which wait in memory.
        samples: the validation split's.
        rounding: what merged weights become before they are computed with.
        ranks: the processes that have the base together, the first of which saves.

    Raises:
        Diverged: a value or the validation loss is not finite.
        Unsaved: the disk is full; what was written of the adapter is gone.
    """
    started = time.perf_counter()
    with adapted(base, trial, weights) as model:
        _refuse_infinite(model)
        ranks.first(partial(_save, model, trial.adapter, plan.base_name))
        # What is computed with in place of PEFT's own is a copy.
        kept = others if rounding is None else [*others, weights]
        waiting = [tensor for own in kept for tensor in own.values()]
        served = as_served(model, trial, weights, rounding)
        with served, memory.validation(model, waiting) as before_batch:
            loss_sum, tokens = summed_loss(
                objective_of([trial.train]), model, samples, plan.evaluate_batch_size,
                before_batch, ranks,
            )  # fmt: skip
        if not math.isfinite(loss_sum):
            raise Diverged("the validation loss is not finite")
        # PEFT counts packed 4-bit weights by what they stand for.
        trainable, total = model.get_nb_trainable_parameters()
        more = _untrained_parameters(trial.settings, base)
        replaced = trainable if trial.settings.replaces else 0
    return CheckedAdapter(
        trainable_parameters=int(trainable) - more,
        total_parameters=int(total) - more - replaced,
        adapter_bytes=(trial.adapter / "adapter_model.safetensors").stat().st_size,
        adapter_sha256=sha256_of_files(trial.adapter, ADAPTER_FILES),
        validation_loss_nats=loss_sum / tokens,
        seconds=time.perf_counter() - started,
    )


def _untrained_parameters(trained: AdapterConfig, base: PreTrainedModel) -> int:
    """What stands in the file beside the trained values, as `AdapterConfig.saved` says."""
    saved, kind = trained.saved(), kind_of(trained)
    if saved == trained:
        return 0
    layers = adapted_layers(base)
    return kind.parameters(saved, layers) - kind.parameters(trained, layers)


def _save(model: PeftModel, folder: Path, base_name: str) -> None:
    try:
        save_adapter(model, folder, base_name)
    except Exception as error:
        # safetensors has an exception type of its own for what the disk refuses.
        if not is_full_disk(error):
            raise
        # Another trial's, which is smaller, may fit.
        shutil.rmtree(folder, ignore_errors=True)
        raise Unsaved(str(error)) from error


@contextmanager
def adapted(base: PreTrainedModel, trial: TrialPlan, weights: Weights) -> Iterator[PeftModel]:
    """The base with a trial's adapter on it; it is bare again afterwards."""
    model = attach_trained(base, trial.settings, weights, trial.seed)
    try:
        yield model
    finally:
        detach(model)
        if base.is_gradient_checkpointing:
            # PEFT lets the embeddings' output require gradients, which a pack does without.
            base.disable_input_require_grads()


@contextmanager
def as_served(
    model: PeftModel, trial: TrialPlan, weights: Weights, rounding: Rounding | None
) -> Iterator[None]:
    """While inside, an adapted base computes with rounded merged weights, as in training; it stays
    as it is without a rounding."""
    if rounding is None:
        yield
        return
    base, names = model.get_base_model(), adapted_names(model.get_base_model())
    layers = {name: base.get_submodule(name) for name in names}
    put_merged_layers(base, trial.settings.saved(), weights, rounding)
    try:
        yield
    finally:
        for name, layer in layers.items():
            base.set_submodule(name, layer)


def put_merged_layers(
    base: PreTrainedModel, settings: AdapterConfig, weights: Weights | None, rounding: Rounding
) -> None:
    """Layers that compute with rounded merged weights, in place of those of PEFT.

    Args:
        settings: of the adapter as it is saved.
        weights: its values; None leaves them zero.
    """
    shapes = adapted_layers(base) if kind_of(settings).packed else []
    stack = kind_of(settings).stack([settings], shapes, base.device)
    names = adapted_names(base)
    if stack is not None:
        if weights is not None:
            stack.write(0, weights)
        for layer in shapes:
            own = base.get_submodule(layer.name)
            base.set_submodule(layer.name, own.base_layer)
        stacked_pack(base, stack, shapes, PackShape([0]))
    round_merged(base, names, rounding)


def _refuse_infinite(model: PeftModel) -> None:
    parameters: list[tuple[str, nn.Parameter]] = list(model.named_parameters())
    for name, parameter in parameters:
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise Diverged(f"{name} holds values that are not finite after training")
