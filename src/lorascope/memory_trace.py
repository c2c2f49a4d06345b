"""One training step, or an evaluation, on fake tensors: the peak of every segment, in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._pytree import tree_map_only
from transformers import masking_utils

from lorascope.cuda_autocast import CudaAutocast
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.fake_model import DEVICE, FakeModelSpec, build_meta_model, make_fake
from lorascope.kernel_memory import CPU_KERNELS, CUDA_KERNELS
from lorascope.layer_marks import LayerMarks
from lorascope.maths.memory import CUDA_BLOCK_BYTES
from lorascope.memory_parts import persistent_parts
from lorascope.micro_batch import Batch
from lorascope.tensor_tracker import TensorTracker, persistent_tensors

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


@dataclass(frozen=True)
class Trace:
    """Of one step at one depth, in bytes."""

    segments: dict[str, int]
    """Peaks of live tensors, what persists included."""
    parts: dict[str, int]
    """base, constants, adapter, gradients, optimizer, activations, what each of HEAD_SEGMENTS adds
    to them, and counts of parameters."""


def trace_training(
    spec: FakeModelSpec, settings: TraceSettings, batch: Batch, layers: int | None, period: int = 1
) -> Trace:
    """Forward, backward, clipping and AdamW, as transformers' Trainer does them."""
    model = build_meta_model(spec, layers)
    with FakeTensorMode(), _attention_masks(batch.padded):
        make_fake(model, spec)
        model.train()
        model.config.use_cache = False
        if settings.checkpointing:
            model.base_model.model.activation_checkpointing_enable()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=settings.device == "cuda")
        _fill(optimizer, trained, batch)
        inputs = _inputs(batch)
        tracker = _tracker(settings.device)
        tracker.add(persistent_tensors(model, optimizer))
        tracker.add(inputs.values())
        before_bytes = tracker.live_bytes
        marks = LayerMarks(model, tracker, period)
        with tracker:
            tracker.mark("forward")
            loss = _training_loss(model, inputs, spec, settings)
            tracker.mark("head_backward")
            marks.in_forward = False
            loss.backward()  # type: ignore[no-untyped-call]
            del loss
            tracker.mark("clip")
            torch.nn.utils.clip_grad_norm_(trained, settings.max_gradient_norm)
            tracker.mark("optimizer")
            optimizer.step()
        parts = persistent_parts(model, optimizer)
        parts["activations"] = marks.layers_end_bytes - before_bytes
        for name in HEAD_SEGMENTS:
            parts[name] = tracker.segments[name] - marks.layers_end_bytes
        return Trace(tracker.segments, parts)


def trace_evaluation(
    spec: FakeModelSpec, settings: TraceSettings, batches: list[Batch], layers: int | None
) -> Trace:
    """`completion_loss` over `batches`, the longest first, as training ends with it.

    Logits and losses of one batch live until those of the next are there.
    """
    model = build_meta_model(spec, layers)
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        make_fake(model, spec)
        model.config.use_cache = False
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=settings.device == "cuda")
        _fill(optimizer, trained, batches[0])
        model.eval()
        tracker = _tracker(settings.device)
        tracker.add(persistent_tensors(model, optimizer))
        stack.enter_context(tracker)
        stack.enter_context(torch.no_grad())
        tracker.mark("evaluate")
        for batch in batches:
            with _attention_masks(batch.padded):
                inputs = _inputs(batch)
                labels = inputs.pop("labels")
                with _autocast(spec, settings):
                    logits = model(**inputs).logits
                logits = _in_float32(logits)
            losses = functional.cross_entropy(
                logits[:, :-1].float().flatten(0, 1),
                labels[:, 1:].flatten(),
                ignore_index=IGNORED_LABEL,
                reduction="none",
            )
            losses.sum(dtype=torch.float64)
        return Trace(tracker.segments, persistent_parts(model, optimizer))


def _training_loss(
    model: PeftModel, inputs: dict[str, Tensor], spec: FakeModelSpec, settings: TraceSettings
) -> Tensor:
    # Tokens over which the loss is averaged; its value does not matter.
    with _autocast(spec, settings):
        outputs = model(**inputs, num_items_in_batch=1)
    outputs = tree_map_only(Tensor, _in_float32, dict(outputs))
    loss: Tensor = outputs["loss"]
    return loss


@contextmanager
def _autocast(spec: FakeModelSpec, settings: TraceSettings) -> Iterator[None]:
    """What accelerate wraps the forward pass in where it computes in 16 bits."""
    with ExitStack() as stack:
        if spec.compute in SIXTEEN_BITS:
            if settings.device == "cuda":
                stack.enter_context(CudaAutocast())
            stack.enter_context(torch.autocast(DEVICE, dtype=spec.compute))
        yield


def _in_float32(tensor: Tensor) -> Tensor:
    """accelerate copies 16-bit outputs to float32."""
    return tensor.float() if tensor.dtype in SIXTEEN_BITS else tensor


def _fill(optimizer: torch.optim.Optimizer, trained: list[nn.Parameter], batch: Batch) -> None:
    """Bring optimizer and gradients into the state in which `batch` finds them."""
    for parameter in trained:
        if batch.gradients:
            parameter.grad = torch.empty_like(parameter)
        if batch.optimizer_state:
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.empty_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.empty_like(parameter, requires_grad=False),
            }


def _inputs(batch: Batch) -> dict[str, Tensor]:
    """Ids, labels and mask, each [samples, tokens]."""
    shape = (batch.samples, batch.tokens)
    names = ("input_ids", "attention_mask", "labels")
    return {name: torch.zeros(shape, dtype=torch.long, device=DEVICE) for name in names}


def _tracker(device: str) -> TensorTracker:
    if device == "cuda":
        return TensorTracker(CUDA_BLOCK_BYTES, CUDA_KERNELS, fake=True)
    return TensorTracker(1, CPU_KERNELS, fake=True)


@contextmanager
def _attention_masks(padded: bool) -> Iterator[None]:
    """transformers looks whether anything is padded, which fake tensors cannot say: without
    padding it needs no mask; for fake tensors it makes one."""
    if padded:
        yield
        return
    with (
        patch.object(masking_utils, "is_tracing", lambda tensor=None: False),
        patch.object(masking_utils, "fast_all", lambda mask: True),
    ):
        yield
