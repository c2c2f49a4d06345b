"""One training step, or an evaluation, on fake tensors: its peaks in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from lorascope.adapters.class_head import head_parameters
from lorascope.adapters.kinds import is_packed, kind_of
from lorascope.adapters.stack import adapted_layers, adapted_names
from lorascope.bases.transformers_config import stored_dtype
from lorascope.machine.devices import autocast
from lorascope.machine.ranks import Share
from lorascope.meters.batches import Batch
from lorascope.meters.tracker import persistent_tensors
from lorascope.objectives.evaluation import forward_of, lora_under_autocast
from lorascope.objectives.kinds import Objective, Places, TokenBatch, objective_of
from lorascope.objectives.padding_free import in_rows
from lorascope.planning.arithmetic import block_bytes
from lorascope.planning.fake_mode import (
    CudaAutocast,
    FakeTracker,
    NumberedDevices,
    attention_masks,
    fake_tensors,
)
from lorascope.planning.fake_model import (
    DEVICE,
    ELSEWHERE,
    fake_adapted,
    fake_pack,
)
from lorascope.planning.marks import StepMarks
from lorascope.planning.parts import frozen_beside, persistent_parts
from lorascope.planning.subject import PlanSubject
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.quantizers.torchao.rounding import Rounding, require_grid, round_frozen, rounding_of
from lorascope.training.loop import StepParts, train_step
from lorascope.training.optimizer import adamw, rows_of
from lorascope.training.pack import PackedModel
from lorascope.training.rates import rates_of
from lorascope.training.validation import put_merged_layers

SIXTEEN_BITS = (torch.float16, torch.bfloat16)
HEAD_SEGMENTS = ("head", "head_backward")
"""Segments of a step from the end of the last layer to the loss, and back."""


@dataclass(frozen=True)
class Trace:
    """Memory of one training step at one depth, in bytes."""

    segments: dict[str, int]
    """Peaks of live tensors, what persists included."""
    parts: dict[str, int]
    """base, constants, adapter, gradients, optimizer, activations, what each of HEAD_SEGMENTS adds
    to them, and counts of parameters."""
    layer_bytes: dict[str, float] = field(default_factory=dict)
    """Bytes that one layer more adds to each segment, and to the parts "activations" and
    "gradients"; empty where that is not known."""


def trace_training(subject: PlanSubject, kept: Sequence[int] | None, period: int = 1) -> Trace:
    """The training's own step: forward, backward, clipping and AdamW.

    Args:
        kept: layers that the traced model has, by their number; None is all.
    """
    train, trials = subject.training, len(subject.spec.pack)
    # A step seeds torch's generator: not that of whoever plans.
    masks = attention_masks(subject.train.padded, subject.device)
    with torch.random.fork_rng(devices=[]), fake_tensors(), masks:
        model, optimizer, tracker = _in_training(subject, kept)
        objective = objective_of([train] * trials)
        fake = _fake_batch(objective, subject.train, trials)
        if subject.shards > 1:
            samples = subject.train.samples // objective.sequences
            # At most: the last ones have fewer where it does not come out even.
            fake = replace(fake, share=Share(0, samples, samples * subject.shards))
        tracker.add(fake.tensors())
        # What a method computes once and keeps, such as DoRA's norms of the base, is no activation.
        before_bytes = tracker.live_bytes - frozen_beside(model, subject.device)
        if train.layer_drop:
            # Whatever is drawn, a step needs the same.
            model.drop_layers([train.layer_drop] * trials)
        starts = subject.shards > 1
        marks = StepMarks(model, tracker, period, partial(_autocast, subject), starts)
        model.train()
        if train.gradient_checkpointing:
            model.base.activation_checkpointing_enable(_checkpoints(subject))
        parts = StepParts(
            pack=model,
            objective=objective,
            optimizer=optimizer,
            max_gradient_norms=[train.max_gradient_norm] * trials,
            autocast=marks.autocast,
            meter=marks,
        )
        with tracker:
            train_step(parts, [fake], step=0, stopped=[False] * trials)
        sizes = persistent_parts(model, optimizer, subject.spec)
        frozen = frozen_beside(model, subject.device)
        sizes["activations"] = marks.layers_end_bytes - before_bytes - frozen
        for name in HEAD_SEGMENTS:
            sizes[name] = tracker.segments[name] - marks.layers_end_bytes
        return Trace(tracker.segments, sizes)


def trace_evaluation(
    subject: PlanSubject, kept: Sequence[int] | None, batches: Iterable[Batch]
) -> int:
    """The peak of the validation loss over `batches`, as training ends with it; without batches
    the bytes before the first one."""

    def validate(model: PeftModel) -> None:
        objective, forward = objective_of([subject.training]), forward_of(model)
        # Nothing of a batch outlives it, so that one of several equal ones is enough.
        for batch in dict.fromkeys(batches):
            with attention_masks(batch.padded, subject.device):
                fake = _fake_batch(objective, batch, trials=1)
                objective.validation_loss(forward, fake)

    return trace_inference(subject, kept, validate)


def trace_inference(
    subject: PlanSubject, kept: Sequence[int] | None, run: Callable[[PeftModel], None]
) -> int:
    """The peak of what `run` does with the model and its adapter, in the mode of an evaluation."""
    numbered = NumberedDevices() if subject.spec.elsewhere else nullcontext()
    with fake_tensors(), numbered:
        model, present = _evaluated(subject, kept)
        tracker = _tracker(subject)
        tracker.add(present)
        casts = _autocast(subject, keep_casts=False)
        with tracker, torch.no_grad(), casts, lora_under_autocast(model):
            run(model)
        return tracker.peak_bytes


def _in_training(
    subject: PlanSubject, kept: Sequence[int] | None
) -> tuple[PackedModel, torch.optim.Optimizer, FakeTracker]:
    """The pack and its optimizer as the batch finds them, and a tracker that counts them; call it
    among fake tensors."""
    pack, rounding = fake_pack(subject.spec, kept), _rounding(subject)
    if rounding is not None:
        require_grid(pack.base, subject.training)
        round_frozen(pack.base, pack.layers, rounding)
        pack.round_merged(rounding)
    if subject.training.patience:
        pack.keep_best()
    trains = [subject.training] * len(pack.stack.rows)
    optimizer = adamw(pack.stack.rows, trains, rates_of(pack.base, pack.stack, trains))
    if subject.train.optimizer_state:
        for row in rows_of(optimizer):
            optimizer.state[row] = {
                "step": torch.zeros((), device=row.device),
                "exp_avg": torch.empty_like(row, requires_grad=False),
                "exp_avg_sq": torch.empty_like(row, requires_grad=False),
            }
    tracker = _tracker(subject)
    tracker.add(persistent_tensors(pack, optimizer))
    return pack, optimizer, tracker


def _evaluated(subject: PlanSubject, kept: Sequence[int] | None) -> tuple[PeftModel, list[Tensor]]:
    """The model with one adapter, and all tensors that are there, those of adapters that wait too;
    call it among fake tensors."""
    spec, rounding = subject.spec, _rounding(subject)
    model = fake_adapted(spec, kept).eval()
    model.config.use_cache = False
    packed = bool(spec.beside) or (rounding is not None and is_packed(spec.adapter))
    shapes = adapted_layers(model.get_base_model()) if packed else []
    head = head_parameters(model.get_base_model())
    waiting = [kind_of(own).parameters(own.saved(), shapes) + head for own in spec.pack[:-1]]
    if rounding is not None:
        base, settings = model.get_base_model(), spec.pack[-1].saved()
        waiting.append(kind_of(settings).parameters(settings, shapes))
        round_frozen(base, adapted_names(base), rounding)
        put_merged_layers(base, settings, None, rounding)
    kept_apart = [torch.empty(parameters, device=DEVICE) for parameters in waiting]
    return model, [*persistent_tensors(model), *kept_apart]


def _rounding(subject: PlanSubject) -> Rounding | None:
    return rounding_of(subject.training, stored_dtype(subject.spec.config))


def _checkpoints(subject: PlanSubject) -> dict[str, Any]:
    """Layers run again as they ran first: torch brings its own autocast back for that, not ours."""
    cuda = subject.device == "cuda" and subject.spec.compute in SIXTEEN_BITS
    again: dict[str, Any] = {"context_fn": lambda: (nullcontext(), CudaAutocast())}
    return {"use_reentrant": False, **(again if cuda else {})}


@contextmanager
def _autocast(subject: PlanSubject, keep_casts: bool = True) -> Iterator[None]:
    """Mixed precision of the forward pass, where it computes in 16 bits."""
    compute = subject.spec.compute
    cuda = subject.device == "cuda" and compute in SIXTEEN_BITS
    with CudaAutocast() if cuda else nullcontext(), autocast(DEVICE, compute, keep_casts):
        yield


def _fake_batch(objective: Objective, batch: Batch, trials: int) -> TokenBatch:
    """A micro-batch of all trials, without data."""
    shape = (trials * batch.samples, batch.tokens)
    ids, mask, labels = (torch.zeros(shape, dtype=torch.long, device=DEVICE) for _ in range(3))
    weights = torch.ones(trials, dtype=torch.long, device=DEVICE)
    labelled = round(trials * batch.labelled_positions)
    counts = [labelled // trials + (trial < labelled % trials) for trial in range(trials)]
    places = Places(torch.zeros(labelled, dtype=torch.long, device=DEVICE), counts)
    reference = torch.zeros(shape, device=DEVICE) if objective.has_reference else None
    fake = TokenBatch(
        ids, mask, labels, weights, places, [0] * trials, batch.padded, reference,
        lengths=batch.lengths * trials,
    )  # fmt: skip
    return in_rows(fake) if fake.lengths else fake


def _tracker(subject: PlanSubject) -> FakeTracker:
    kernels = QUANTIZERS[subject.spec.quant.storage].kernels(subject.device)
    counted = torch.device(ELSEWHERE) if subject.spec.elsewhere else None
    return FakeTracker(block_bytes(subject.device), kernels, fake=True, device=counted)
