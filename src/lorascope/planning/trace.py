"""One training step, or an evaluation, on fake tensors: its peaks in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from lorascope.adapters.kinds import kind_of
from lorascope.adapters.stack import adapted_layers
from lorascope.config import TrainConfig
from lorascope.meters.batches import Batch
from lorascope.meters.tracker import persistent_tensors
from lorascope.objectives.evaluation import forward_of
from lorascope.objectives.kinds import OBJECTIVES, TokenBatch
from lorascope.planning.arithmetic import CUDA_BLOCK_BYTES
from lorascope.planning.cuda_autocast import CudaAutocast
from lorascope.planning.fake_mode import FakeTracker, attention_masks, fake_tensors
from lorascope.planning.fake_model import DEVICE, FakeModelSpec, fake_adapted, fake_pack
from lorascope.planning.marks import StepMarks
from lorascope.planning.parts import persistent_parts
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.training.loop import StepParts, train_step
from lorascope.training.optimizer import adamw, rows_of
from lorascope.training.pack import PackedModel

SIXTEEN_BITS = (torch.float16, torch.bfloat16)
HEAD_SEGMENTS = ("head", "head_backward")
"""Of a step: from the last layer's end to the loss, and back."""


@dataclass(frozen=True)
class TraceSettings:
    """How a model is trained, as far as memory goes."""

    device: str
    """cpu or cuda."""
    checkpointing: bool
    max_gradient_norm: float = 1.0
    validates: bool = False
    """Between two steps, too."""
    keeps_best: bool = False
    """A copy of each adapter."""
    objective: str = "completion"


@dataclass(frozen=True)
class Trace:
    """Of one step at one depth, in bytes."""

    segments: dict[str, int]
    """Peaks of live tensors, what persists included."""
    parts: dict[str, int]
    """base, constants, adapter, gradients, optimizer, activations, what each of HEAD_SEGMENTS adds
    to them, and counts of parameters."""
    layer_bytes: dict[str, float] = field(default_factory=dict)
    """What a layer more adds to each segment, and to the parts "activations" and "adapter"; empty
    where that is not known."""


def trace_training(
    spec: FakeModelSpec,
    settings: TraceSettings,
    batch: Batch,
    kept: Sequence[int] | None,
    period: int = 1,
) -> Trace:
    """The training's own step: forward, backward, clipping and AdamW.

    Args:
        kept: layers that the traced model has, by their number; None is all.
    """
    # A step seeds torch's generator: not that of whoever plans.
    with torch.random.fork_rng(devices=[]), fake_tensors(), attention_masks(batch.padded):
        model, optimizer, tracker = _in_training(spec, settings, batch, kept)
        fake = _fake_batch(batch, len(spec.pack))
        tracker.add(fake.tensors())
        before_bytes = tracker.live_bytes
        marks = StepMarks(model, tracker, period, partial(_autocast, spec, settings))
        model.train()
        if settings.checkpointing:
            model.base.activation_checkpointing_enable(_checkpoints(spec, settings))
        parts = StepParts(
            pack=model,
            objective=OBJECTIVES[settings.objective](),
            optimizer=optimizer,
            max_gradient_norms=[settings.max_gradient_norm] * len(spec.pack),
            autocast=marks.autocast,
            meter=marks,
        )
        with tracker:
            train_step(parts, [fake], step=0, stopped=[False] * len(spec.pack))
        sizes = persistent_parts(model, optimizer)
        sizes["activations"] = marks.layers_end_bytes - before_bytes
        for name in HEAD_SEGMENTS:
            sizes[name] = tracker.segments[name] - marks.layers_end_bytes
        return Trace(tracker.segments, sizes)


def trace_evaluation(
    spec: FakeModelSpec,
    settings: TraceSettings,
    batches: Sequence[Batch],
    kept: Sequence[int] | None,
) -> int:
    """The validation loss over `batches`, the longest first, as training ends with it."""
    with ExitStack() as stack:
        stack.enter_context(fake_tensors())
        model, present = _evaluated(spec, kept)
        tracker = _tracker(spec, settings.device)
        tracker.add(present)
        stack.enter_context(tracker)
        stack.enter_context(torch.no_grad())
        objective, forward = OBJECTIVES[settings.objective](), forward_of(model)
        # Nothing of a batch outlives it, so that one of several equal ones is enough.
        for batch in dict.fromkeys(batches):
            with attention_masks(batch.padded):
                objective.validation_loss(forward, _fake_batch(batch, trials=1))
        return tracker.peak_bytes


def evaluation_start_bytes(
    spec: FakeModelSpec, settings: TraceSettings, kept: Sequence[int] | None
) -> int:
    """What is there before the first batch of an evaluation comes."""
    with fake_tensors():
        tracker = _tracker(spec, settings.device)
        tracker.add(_evaluated(spec, kept)[1])
        return tracker.peak_bytes


def _in_training(
    spec: FakeModelSpec, settings: TraceSettings, batch: Batch, kept: Sequence[int] | None
) -> tuple[PackedModel, torch.optim.Optimizer, FakeTracker]:
    """The pack and its optimizer as `batch` finds them, and a tracker that counts them; call it
    among fake tensors."""
    pack = fake_pack(spec, kept)
    if settings.keeps_best:
        pack.keep_best()
    optimizer = adamw(pack.stack.rows, [TrainConfig()] * len(spec.pack))
    if batch.optimizer_state:
        for row in rows_of(optimizer):
            optimizer.state[row] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.empty_like(row, requires_grad=False),
                "exp_avg_sq": torch.empty_like(row, requires_grad=False),
            }
    tracker = _tracker(spec, settings.device)
    tracker.add(persistent_tensors(pack, optimizer))
    return pack, optimizer, tracker


def _evaluated(spec: FakeModelSpec, kept: Sequence[int] | None) -> tuple[PeftModel, list[Tensor]]:
    """The model with one adapter, and all tensors that are there, those of adapters that wait too;
    call it among fake tensors."""
    model = fake_adapted(spec, kept).eval()
    model.config.use_cache = False
    shapes = adapted_layers(model.get_base_model())
    waiting = [kind_of(own).parameters(own, shapes) for own in spec.pack[:-1]]
    kept_apart = [torch.empty(parameters, device=DEVICE) for parameters in waiting]
    return model, [*persistent_tensors(model), *kept_apart]


def _checkpoints(spec: FakeModelSpec, settings: TraceSettings) -> dict[str, Any]:
    """Layers run again as they ran first: torch brings its own autocast back for that, not ours."""
    cuda = settings.device == "cuda" and spec.compute in SIXTEEN_BITS
    again: dict[str, Any] = {"context_fn": lambda: (nullcontext(), CudaAutocast())}
    return {"use_reentrant": False, **(again if cuda else {})}


@contextmanager
def _autocast(spec: FakeModelSpec, settings: TraceSettings) -> Iterator[None]:
    """What accelerate wraps the forward pass in where it computes in 16 bits."""
    with ExitStack() as stack:
        if spec.compute in SIXTEEN_BITS:
            if settings.device == "cuda":
                stack.enter_context(CudaAutocast())
            stack.enter_context(torch.autocast(DEVICE, dtype=spec.compute))
        yield


def _fake_batch(batch: Batch, trials: int) -> TokenBatch:
    """A micro-batch of all trials, without data."""
    shape = (trials * batch.samples, batch.tokens)
    ids, mask, labels = (torch.zeros(shape, dtype=torch.long, device=DEVICE) for _ in range(3))
    weights = torch.ones(trials, dtype=torch.long, device=DEVICE)
    return TokenBatch(ids, mask, labels, weights, [0] * trials, batch.padded)


def block_bytes(device: str) -> int:
    """An allocator hands out multiples of it."""
    return CUDA_BLOCK_BYTES if device == "cuda" else 1


def _tracker(spec: FakeModelSpec, device: str) -> FakeTracker:
    kernels = QUANTIZERS[spec.quant.storage].kernels(device)
    return FakeTracker(block_bytes(device), kernels, fake=True)
