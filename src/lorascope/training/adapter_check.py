"""A trained adapter as plain PEFT has it: saved, counted, and measured on the validation split."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lorascope.adapters.lora.attach import attach, parameter_counts, save_adapter
from lorascope.adapters.lora.stack import AdapterWeights, put_weights
from lorascope.files.disk_faults import is_full_disk
from lorascope.files.layout import ADAPTER_FILES
from lorascope.files.store import sha256_of_files
from lorascope.meters.batches import BatchMemory
from lorascope.objectives.completion import Sample, loss_of_samples
from lorascope.training.log import Diverged
from lorascope.training.trial_plan import PackPlan, TrialPlan


class Unsaved(Exception):
    """An adapter that was trained, and that the disk has no room for."""


@dataclass(frozen=True)
class CheckedAdapter:
    """What is known of an adapter once it stands on its base alone."""

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
    weights: AdapterWeights,
    others: list[AdapterWeights],
    samples: Sequence[Sample],
    memory: BatchMemory,
) -> CheckedAdapter:
    """Save the adapter to `trial.adapter` and measure it; the base is bare again afterwards.

    Args:
        others: the pack's other adapters, which wait in memory.
        samples: of the validation split, as `completion_samples` makes them.

    Raises:
        Diverged: a value or the validation loss is not finite.
        Unsaved: the disk is full; what was written of the adapter is gone.
    """
    started = time.perf_counter()
    with adapted(base, trial, weights) as model:
        _refuse_infinite(model)
        _save(model, trial.adapter, plan.base_name)
        with memory.validation(model, [tensor for other in others for tensor in other.tensors()]):
            loss_sum, tokens = loss_of_samples(model, samples, plan.evaluate_batch_size)
        if not math.isfinite(loss_sum):
            raise Diverged("the validation loss is not finite")
        trainable, total = parameter_counts(model)
    return CheckedAdapter(
        trainable_parameters=trainable,
        total_parameters=total,
        adapter_bytes=(trial.adapter / "adapter_model.safetensors").stat().st_size,
        adapter_sha256=sha256_of_files(trial.adapter, ADAPTER_FILES),
        validation_loss_nats=loss_sum / tokens,
        seconds=time.perf_counter() - started,
    )


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
def adapted(
    base: PreTrainedModel, trial: TrialPlan, weights: AdapterWeights
) -> Iterator[PeftModel]:
    """The base with a trial's adapter on it; it is bare again afterwards."""
    model = attach(base, trial.lora, trial.seed)
    try:
        put_weights(model, weights)
        yield model
    finally:
        model.unload()
        if base.is_gradient_checkpointing:
            # PEFT lets the embeddings' output require gradients, which a pack does without.
            base.disable_input_require_grads()


def _refuse_infinite(model: PeftModel) -> None:
    parameters: list[tuple[str, nn.Parameter]] = list(model.named_parameters())
    for name, parameter in parameters:
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise Diverged(f"{name} holds values that are not finite after training")
