"""Batches of a pack: every trial reads the data in the order of its own seed, as it would alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from lorascope.config import TrainConfig
from lorascope.machine.ranks import ALONE, Ranks
from lorascope.objectives.kinds import Objective, Sample, TokenBatch, longest_tokens
from lorascope.objectives.shares import own_batch


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows in an epoch, counted from 0: that of accelerate's
    SeedableRandomSampler."""
    generator = torch.Generator().manual_seed(seed + epoch)
    order: list[int] = torch.randperm(rows, generator=generator).tolist()
    return order


def order_expression(rows: int, seed: int) -> str:
    """`epoch_order` of one trial for whoever has torch alone: Python, with `epoch` from 0."""
    return f"torch.randperm({rows}, generator=torch.Generator().manual_seed({seed} + epoch))"


class PackData:
    """Samples of a training, cut into steps and micro-batches.

    What a step reads depends on its number alone, so that a resumed training skips no batches. The
    last step of an epoch is shorter where samples run out; no step reads from two epochs.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        seeds: Sequence[int],
        train: TrainConfig,
        objective: Objective,
        pad_token_id: int,
        ranks: Ranks = ALONE,
    ) -> None:
        # Tensors already, so that no batch converts them again.
        self._samples = [tuple(torch.as_tensor(part) for part in sample) for sample in samples]
        self._seeds, self._train = seeds, train
        self._objective, self._pad_token_id, self._ranks = objective, pad_token_id, ranks
        self._epoch, self._orders = -1, list[list[int]]()

    @property
    def samples(self) -> int:
        """Samples of an epoch."""
        return len(self._samples)

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest sequence."""
        return longest_tokens(self._samples)

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps until each trial has read all samples once."""
        return math.ceil(len(self._samples) / self._train.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        epochs = self._train.epochs
        if self._train.steps is not None or epochs is None:
            return int(self._train.steps or 0)
        return math.ceil(epochs * self.steps_an_epoch)

    def micro_batches(self, step: int) -> list[TokenBatch]:
        """The batches of a step, counted from 0."""
        epoch, within = divmod(step, self.steps_an_epoch)
        if epoch != self._epoch:
            rows = len(self._samples)
            self._orders = [epoch_order(rows, seed, epoch) for seed in self._seeds]
            self._epoch = epoch
        start, size = within * self._train.batch_size, self._train.micro_batch_size
        end = min(start + self._train.batch_size, len(self._samples))
        return [self._collated(first, min(first + size, end)) for first in range(start, end, size)]

    def first(self, trial: int, samples: int, at_once: int | None = None) -> Iterator[TokenBatch]:
        """The first samples that one trial will read, in its micro-batches or so many at once; at
        most all that there are."""
        order = epoch_order(len(self._samples), self._seeds[trial], 0)[:samples]
        size = at_once or self._train.micro_batch_size
        for start in range(0, len(order), size):
            together = [self._samples[place] for place in order[start : start + size]]
            yield self._objective.collate(together, 1, self._pad_token_id)

    def _collated(self, start: int, end: int) -> TokenBatch:
        if self._ranks.count > 1:
            each = [[self._samples[place] for place in own[start:end]] for own in self._orders]
            return own_batch(self._objective, each, self._pad_token_id, self._ranks)
        samples = [self._samples[place] for own in self._orders for place in own[start:end]]
        return self._objective.collate(samples, len(self._seeds), self._pad_token_id)
