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
from lorascope.counting.parameters import FLOAT32_BYTES
from lorascope.machine.devices import autocast
from lorascope.machine.ranks import Share
from lorascope.meters.batches import Batch
from lorascope.meters.tracker import TensorTracker, persistent_tensors, quantized_constants
from lorascope.objectives.evaluation import forward_of, lora_under_autocast
from lorascope.objectives.kinds import Objective, Places, TokenBatch, objective_of
from lorascope.objectives.padding_free import in_rows
from lorascope.planning.arithmetic import CUDA_BLOCK_BYTES
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
    FakeModelSpec,
    fake_adapted,
    fake_pack,
)
from lorascope.planning.marks import StepMarks
from lorascope.planning.subject import PlanSubject
from lorascope.quantizers.kinds import QUANTIZERS, quantized_layers
from lorascope.quantizers.torchao.rounding import Rounding, require_grid, round_frozen, rounding_of
from lorascope.records import LinearShape
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
        before_bytes = tracker.live_bytes - _frozen_beside(model, subject.device)
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
        sizes = _persistent_parts(model, optimizer, subject.spec)
        frozen = _frozen_beside(model, subject.device)
        sizes["activations"] = marks.layers_end_bytes - before_bytes - frozen
        for name in HEAD_SEGMENTS:
            sizes[name] = tracker.segments[name] - marks.layers_end_bytes
        return Trace(tracker.segments, sizes)


def _persistent_parts(
    model: PackedModel, optimizer: torch.optim.Optimizer, spec: FakeModelSpec
) -> dict[str, int]:
    """Bytes of base, constants, adapter, its best copy, gradients and optimizer, and counts of
    parameters, of what `spec` counts."""
    present = partial(_present, spec)
    trained = present(p for p in model.parameters() if p.requires_grad)
    everything, quantized = TensorTracker(), TensorTracker()
    everything.add(present(persistent_tensors(model)))
    quantized.add(present(quantized_constants(model)))
    adapter = sum(parameter.nbytes for parameter in trained)
    best = sum(row.nbytes for row in present(model.best_rows))
    frozen = _frozen_beside(model)
    states = [value for state in optimizer.state.values() for value in state.values()]
    return {
        "base": everything.live_bytes - 2 * adapter - best - frozen,
        "constants": quantized.live_bytes,
        "adapter": adapter + frozen,
        "best": best,
        "gradients": adapter,
        # As PEFT holds the largest one.
        "saved_adapter": FLOAT32_BYTES * _saved_parameters(model, spec),
        "reading": _reading(model, spec),
        "optimizer": sum(value.nbytes for value in present(states)),
        # Of a base that is whole on each device; see `planning.shards`.
        "spared": 0,
        "gathered": 0,
        **_parameter_counts(model, spec),
    }


def _present(spec: FakeModelSpec, values: Iterable[Any]) -> list[Any]:
    """The tensors among `values` that are counted: of a model whose layers lie elsewhere, those
    there."""
    counted = torch.device(ELSEWHERE)
    return [
        own
        for own in values
        if isinstance(own, Tensor) and (not spec.elsewhere or own.device == counted)
    ]


def _saved_parameters(model: PackedModel, spec: FakeModelSpec) -> int:
    """Parameters of the largest adapter as it is saved."""
    if not spec.adapter.subtracts():
        return max(model.stack.parameters)
    layers = _adapted_shapes(model)
    return max(kind_of(own).parameters(own.saved(), layers) for own in spec.pack)


def _reading(model: PackedModel, spec: FakeModelSpec) -> int:
    """Bytes that a trial's method holds while it reads before the first step."""
    layers = _adapted_shapes(model) if any(own.reads_samples() for own in spec.pack) else []
    return max(kind_of(own).reading_bytes(own, layers) for own in spec.pack)


def _adapted_shapes(model: PackedModel) -> list[LinearShape]:
    named = [(name, model.base.get_submodule(name)) for name in model.layers]
    return [
        LinearShape(name, name.rpartition(".")[2], int(own.in_features), int(own.out_features))
        for name, own in named
    ]


def _frozen_beside(model: PackedModel, device: str = "cpu") -> int:
    """Bytes of what a method keeps beside the base's layers without training it, shared tensors
    once: VeRA's matrices, DoRA's norms of the base."""
    kept = TensorTracker(block_bytes(device))
    for name in model.layers:
        buffers = model.base.get_submodule(name).named_buffers()
        kept.add(tensor for own, tensor in buffers if not own.startswith("base_layer."))
    return kept.live_bytes


def _parameter_counts(model: PackedModel, spec: FakeModelSpec) -> dict[str, int]:
    """Parameters of the frozen base, before any packing into bytes; tied ones count once."""
    layers = [layer for _, layer, _ in quantized_layers(model)]
    quantized = [layer.in_features * layer.out_features for layer in layers]
    packed = {id(layer.weight) for layer in layers}
    others = [
        parameter.numel()
        for parameter in _present(spec, model.parameters())
        if not parameter.requires_grad and id(parameter) not in packed
    ]
    return {
        "parameters": sum(quantized) + sum(others),
        "quantized_parameters": sum(quantized),
        "largest_quantized": max(quantized, default=0),
        "largest_other": max(others, default=0),
    }


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


def block_bytes(device: str) -> int:
    """An allocator hands out multiples of it."""
    return CUDA_BLOCK_BYTES if device == "cuda" else 1


def _tracker(subject: PlanSubject) -> FakeTracker:
    kernels = QUANTIZERS[subject.spec.quant.storage].kernels(subject.device)
    counted = torch.device(ELSEWHERE) if subject.spec.elsewhere else None
    return FakeTracker(block_bytes(subject.device), kernels, fake=True, device=counted)
