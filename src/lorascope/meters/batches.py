"""Memory of a training's batches: measured on a CPU, for those that could set a new peak.

On CUDA the allocator itself measures, and only the largest batch is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import nn

from lorascope.machine.devices import Device
from lorascope.meters.elastic import ElasticTracker
from lorascope.meters.tracker import TensorTracker, persistent_tensors
from lorascope.objectives.kinds import TokenBatch
from lorascope.records import PhaseMemory

TRACKED_STEPS = 2
"""Optimizer steps that are measured: the first makes the optimizer's state, the second finds it."""
TRACKED_EVALUATIONS = 2
"""Batches of the validation loss that are measured. They come longest first."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch of one trial, and what is there already when it comes."""

    samples: int
    """Sequences: an objective may read several of each row."""
    tokens: int
    """Padded tokens a sample; of the longest where samples are computed without padding, which may
    be fewer than their batch is padded to."""
    padded: bool
    """Whether some sample is shorter: attention then gets a mask, if it computes the padding."""
    optimizer_state: bool = True
    """Whether the optimizer has its state already; it has none in the first step."""
    labelled: float | None = None
    """Labelled positions a sample, whose logits are computed; None is all positions but the last,
    which predicts nothing."""
    computed: int | None = None
    """Tokens of all samples, of the trial with the most, where they are computed without padding;
    None where all are padded."""

    @property
    def shape(self) -> tuple[int, int]:
        """(samples, padded tokens a sample)"""
        return self.samples, self.tokens

    @property
    def masked(self) -> bool:
        """Whether attention gets a mask, which may take more than all else."""
        return self.padded and self.computed is None

    @property
    def computed_tokens(self) -> int:
        """Positions that are computed, padding included where it is."""
        return self.samples * self.tokens if self.computed is None else self.computed

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of samples of which this may be the batch; empty where all are padded."""
        if self.computed is None:
            return ()
        each, more = divmod(self.computed - self.tokens, max(1, self.samples - 1))
        rest = self.samples - 1
        return self.tokens, *(each + (place < more) for place in range(rest))

    @property
    def labelled_positions(self) -> float:
        """Labelled positions of all samples."""
        labelled = self.tokens - 1 if self.labelled is None else self.labelled
        return labelled * self.samples


class BatchMemory:
    """Peaks of all live tensors by phase, and the batches that made them.

    Args:
        tracking: measure at all; steps that are measured take several times as long.
        divided: whether other processes have parts of the base.
    """

    def __init__(self, device: Device, tracking: bool = True, divided: bool = False) -> None:
        self._tracker = ElasticTracker if divided else TensorTracker
        self._tracking = tracking and device.kind == "cpu"
        self.train_peak_bytes: int | None = None
        self.evaluate_peak_bytes: int | None = None
        self.largest: Batch | None = None
        """The micro-batch with the highest peak; on CUDA the one with the most tokens."""
        self.evaluation: list[Batch] = []
        self._seen: list[Batch] = []
        self._steps = 0

    @contextmanager
    def micro_batch(
        self, pack: nn.Module, optimizer: torch.optim.Optimizer, batch: TokenBatch
    ) -> Iterator[None]:
        """Measure one forward and backward pass, unless one measured before was no smaller."""
        # The state is empty before the first step.
        shape = _batch_of(batch, bool(optimizer.state))
        if any(_covers(other, shape) for other in self._seen):
            yield
            return
        self._seen.append(shape)
        if not self._tracking:
            if self.largest is None or _size(shape) > _size(self.largest):
                self.largest = shape
            yield
            return
        before_bytes = self.train_peak_bytes or 0
        with self._measured(chain(persistent_tensors(pack, optimizer), batch.tensors())):
            yield
        if (self.train_peak_bytes or 0) > before_bytes:
            self.largest = shape

    @contextmanager
    def optimizer_step(self, pack: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Measure the first optimizer steps too, where adapters outweigh their batches."""
        self._steps += 1
        if not self._tracking or self._steps > TRACKED_STEPS:
            yield
            return
        with self._measured(persistent_tensors(pack, optimizer)):
            yield

    @contextmanager
    def _measured(self, present: Iterable[torch.Tensor]) -> Iterator[None]:
        tracker = self._tracker()
        tracker.add(present)
        with tracker:
            yield
        self._note_peak(tracker)

    def _note_peak(self, tracker: TensorTracker) -> None:
        self.train_peak_bytes = max(self.train_peak_bytes or 0, tracker.peak_bytes)

    @contextmanager
    def validation(
        self, model: nn.Module, waiting: Iterable[torch.Tensor], in_training: bool = False
    ) -> Iterator[Callable[[TokenBatch], None]]:
        """Measure the first batches of a validation loss.

        Args:
            waiting: tensors that exist beside the model.
            in_training: whether the validation runs between two steps: its peak is the training's.

        Returns:
            What to call before each batch.
        """
        tracker = self._tracker()
        batches: list[Batch] = []

        def before_batch(batch: TokenBatch) -> None:
            tracker.paused = len(batches) >= TRACKED_EVALUATIONS
            if not tracker.paused:
                batches.append(_batch_of(batch))

        if self._tracking:
            tracker.add(persistent_tensors(model))
            tracker.add(waiting)
            with tracker:
                yield before_batch
            if in_training:
                self._note_peak(tracker)
            else:
                known = self.evaluate_peak_bytes or 0
                self.evaluate_peak_bytes = max(known, tracker.peak_bytes)
        else:
            yield before_batch
        self.evaluation = batches

    def with_peaks(self, phases: Mapping[str, PhaseMemory]) -> dict[str, PhaseMemory]:
        """`phases` with the peaks that were tracked in them."""
        tracked = {"train": self.train_peak_bytes, "evaluate": self.evaluate_peak_bytes}
        return {
            name: replace(phase, tracked_peak_bytes=tracked.get(name))
            for name, phase in phases.items()
        }


def _batch_of(batch: TokenBatch, optimizer_state: bool = True) -> Batch:
    rows, tokens = batch.shape
    labelled = sum(batch.places.counts) / rows
    samples, computed = rows // len(batch.weights), None
    if batch.rows is not None:
        tokens, computed = max(batch.lengths), batch.rows.tokens
    return Batch(samples, tokens, batch.padded, optimizer_state, labelled, computed)


def _size(batch: Batch) -> tuple[bool, int]:
    return batch.optimizer_state, batch.computed_tokens


def _covers(known: Batch, other: Batch) -> bool:
    """Whether a batch like `known` needs at least as much as one like `other`."""
    padding_free = known.computed is not None and other.computed is not None
    return (
        (padding_free or known.samples >= other.samples)
        and (padding_free or known.tokens >= other.tokens)
        and known.computed_tokens >= other.computed_tokens
        and known.masked >= other.masked
        and known.optimizer_state >= other.optimizer_state
        and known.labelled_positions >= other.labelled_positions
    )
