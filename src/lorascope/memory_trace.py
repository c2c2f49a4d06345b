"""One training step, or an evaluation, on fake tensors: its peaks in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from lorascope.cuda_autocast import CudaAutocast
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.fake_mode import FakeTracker, attention_masks, fake_tensors
from lorascope.fake_model import DEVICE, FakeModelSpec, build_meta_model, make_fake
from lorascope.kernel_memory import CPU_KERNELS, CUDA_KERNELS
from lorascope.layer_marks import LayerMarks
from lorascope.maths.memory import CUDA_BLOCK_BYTES
from lorascope.memory_parts import persistent_parts
from lorascope.micro_batch import Batch
from lorascope.tensor_tracker import persistent_tensors

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
    """Forward, backward, clipping and AdamW, as transformers' Trainer does them.

    Args:
        kept: layers that the traced model has, by their number; None is all.
    """
    with fake_tensors(), attention_masks(batch.padded):
        model, optimizer, tracker = _in_training(spec, settings, batch, kept)
        model.train()
        if settings.checkpointing:
            model.base_model.model.activation_checkpointing_enable(_checkpoints(spec, settings))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        inputs = _inputs(batch)
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
    spec: FakeModelSpec,
    settings: TraceSettings,
    batches: Sequence[Batch],
    kept: Sequence[int] | None,
) -> int:
    """`completion_loss` over `batches`, the longest first, as training ends with it.

    Logits and losses of one batch live until those of the next are there.
    """
    with ExitStack() as stack:
        stack.enter_context(fake_tensors())
        model, _, tracker = _in_training(spec, settings, batches[0], kept)
        model.eval()
        stack.enter_context(tracker)
        stack.enter_context(torch.no_grad())
        if len(batches) > 1 and batches[0] == batches[1]:
            # The first of two equal ones needs no more than the second, and leaves it these.
            head = model.get_output_embeddings().weight
            labels = _inputs(batches[0])["labels"]
            logits = torch.empty((*labels.shape, head.shape[0]), device=DEVICE)
            losses = torch.empty_like(labels[:, 1:].flatten(), dtype=torch.float32)
            batches = batches[1:]
        for batch in batches:
            with attention_masks(batch.padded):
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
        return tracker.peak_bytes


def persistent_bytes(
    spec: FakeModelSpec, settings: TraceSettings, batch: Batch, kept: Sequence[int] | None
) -> int:
    """What is there before `batch` comes."""
    with fake_tensors():
        return _in_training(spec, settings, batch, kept)[2].peak_bytes


def _in_training(
    spec: FakeModelSpec, settings: TraceSettings, batch: Batch, kept: Sequence[int] | None
) -> tuple[PeftModel, torch.optim.Optimizer, FakeTracker]:
    """The model and its optimizer as `batch` finds them, and a tracker that counts them; call it
    among fake tensors."""
    with unset_fake_temporarily():
        model = build_meta_model(spec, kept)
    make_fake(model, spec)
    model.config.use_cache = False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, foreach=settings.device == "cuda")
    _fill(optimizer, trained, batch)
    tracker = _tracker(settings.device)
    tracker.add(persistent_tensors(model, optimizer))
    return model, optimizer, tracker


def _training_loss(
    model: PeftModel, inputs: dict[str, Tensor], spec: FakeModelSpec, settings: TraceSettings
) -> Tensor:
    # Tokens over which the loss is averaged; its value does not matter.
    with _autocast(spec, settings):
        outputs = model(**inputs, num_items_in_batch=1)
    outputs = tree_map_only(Tensor, _in_float32, dict(outputs))
    loss: Tensor = outputs["loss"]
    return loss


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


def _tracker(device: str) -> FakeTracker:
    if device == "cuda":
        return FakeTracker(CUDA_BLOCK_BYTES, CUDA_KERNELS, fake=True)
    return FakeTracker(1, CPU_KERNELS, fake=True)
