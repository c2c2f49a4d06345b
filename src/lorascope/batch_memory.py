"""Measures the memory of a training's batches: only of those that could set a new peak, on a CPU.

On CUDA the allocator itself measures, and only the largest batch is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from lorascope.devices import Device
from lorascope.micro_batch import Batch
from lorascope.records import PhaseMemory
from lorascope.tensor_tracker import TensorTracker, persistent_tensors

TRACKED_STEPS = 2
"""Optimizer steps: the first makes the optimizer's state, the second finds it."""
TRACKED_EVALUATIONS = 2
"""Batches of the validation loss, which come longest first; the second meets the first's logits."""


class BatchMemory:
    """Peaks of all live tensors by phase, and the batches that made them."""

    def __init__(self, device: Device) -> None:
        self._tracking = device.kind == "cpu"
        self.train_peak_bytes: int | None = None
        self.evaluate_peak_bytes: int | None = None
        self.largest: Batch | None = None
        """The micro-batch with the highest peak; on CUDA the one with the most tokens."""
        self.evaluation: list[Batch] = []
        self._seen: list[Batch] = []
        self._steps = 0

    @contextmanager
    def micro_batch(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        inputs: Mapping[str, torch.Tensor],
    ) -> Iterator[None]:
        """Measure one forward and backward pass, unless one measured before was no smaller."""
        batch = _batch_of(inputs, model, optimizer)
        if any(_covers(other, batch) for other in self._seen):
            yield
            return
        self._seen.append(batch)
        if not self._tracking:
            self._note_size(batch)
            yield
            return
        tracker = TensorTracker()
        tracker.add(persistent_tensors(model, optimizer))
        tracker.add(inputs.values())
        with tracker:
            yield
        if tracker.peak_bytes > (self.train_peak_bytes or 0):
            self.largest = batch
        self._note_peak(tracker)

    def _note_peak(self, tracker: TensorTracker) -> None:
        self.train_peak_bytes = max(self.train_peak_bytes or 0, tracker.peak_bytes)

    def _note_size(self, batch: Batch) -> None:
        known = self.largest
        if known is None or _size(batch) > _size(known):
            self.largest = batch

    def watch_steps(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Measure the first optimizer steps too, where adapters outweigh their batches."""
        if not self._tracking:
            return
        entered = ExitStack()

        def before(*_: Any) -> None:
            if self._steps < TRACKED_STEPS:
                tracker = TensorTracker()
                tracker.add(persistent_tensors(model, optimizer))
                entered.callback(self._note_peak, tracker)
                entered.enter_context(tracker)

        def after(*_: Any) -> None:
            entered.close()
            self._steps += 1

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)

    @contextmanager
    def validation(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Measure the first batches of a validation loss."""
        tracker = TensorTracker()
        passes = 0

        def before(module: nn.Module, args: Any, kwargs: dict[str, torch.Tensor]) -> None:
            nonlocal passes
            passes += 1
            tracker.paused = passes > TRACKED_EVALUATIONS
            if not tracker.paused:
                self.evaluation.append(_batch_of(kwargs, model, optimizer))

        handle = model.register_forward_pre_hook(before, with_kwargs=True)
        try:
            if self._tracking:
                tracker.add(persistent_tensors(model, optimizer))
                with tracker:
                    yield
                self.evaluate_peak_bytes = tracker.peak_bytes
            else:
                yield
        finally:
            handle.remove()

    def with_peaks(self, phases: Mapping[str, PhaseMemory]) -> dict[str, PhaseMemory]:
        """`phases` with what was tracked in them."""
        tracked = {"train": self.train_peak_bytes, "evaluate": self.evaluate_peak_bytes}
        return {
            name: replace(phase, tracked_peak_bytes=tracked.get(name))
            for name, phase in phases.items()
        }


class MeasuredTrainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer whose batches are measured on the way; it computes the same."""

    def __init__(self, memory: BatchMemory, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._batch_memory = memory

    def training_step(self, model: nn.Module, inputs: Any, *rest: Any, **named: Any) -> Any:
        """One micro-batch."""
        with self._batch_memory.micro_batch(model, self.optimizer, inputs):
            return super().training_step(model, inputs, *rest, **named)

    def create_optimizer(self, *arguments: Any, **named: Any) -> torch.optim.Optimizer:
        """The Trainer's own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*arguments, **named)
        self._batch_memory.watch_steps(self.model, optimizer)
        return optimizer


def _batch_of(
    inputs: Mapping[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> Batch:
    samples, tokens = inputs["input_ids"].shape
    trained = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    return Batch(
        samples=samples,
        tokens=tokens,
        padded=not bool(inputs["attention_mask"].all()),
        optimizer_state=bool(getattr(optimizer, "optimizer", optimizer).state),
        gradients=trained.grad is not None,
    )


def _size(batch: Batch) -> tuple[bool, int]:
    return batch.optimizer_state, batch.samples * batch.tokens


def _covers(known: Batch, other: Batch) -> bool:
    """Whether a batch like `known` needs at least as much as one like `other`."""
    return (
        known.samples >= other.samples
        and known.tokens >= other.tokens
        and known.padded >= other.padded
        and known.optimizer_state >= other.optimizer_state
        and known.gradients >= other.gradients
    )
