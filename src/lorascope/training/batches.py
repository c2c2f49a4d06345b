"""Batches of a pack: every trial reads the data in its own order, as it would alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import Dataset, Sampler

from lorascope.objectives.completion import pad_samples

Sample = tuple[torch.Tensor, torch.Tensor]
"""Input ids and labels [tokens]."""


class PackedSamples(Dataset[tuple[Sample, ...]]):
    """As long as the data, samples of (ids, labels); an item is one sample for each trial."""

    def __init__(self, samples: Iterable[tuple[list[int], list[int]]]) -> None:
        self._samples = [(torch.tensor(ids), torch.tensor(labels)) for ids, labels in samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, places: tuple[int, ...]) -> tuple[Sample, ...]:
        """The samples at one place for each trial."""
        return tuple(self._samples[place] for place in places)


def order_expression(rows: int, seed: int) -> str:
    """`PackedOrder` of one trial for whoever has torch alone: Python, with `epoch` from 0."""
    return f"torch.randperm({rows}, generator=torch.Generator().manual_seed({seed} + epoch))"


class PackedOrder(Sampler[tuple[int, ...]]):
    """For each trial the order in which accelerate shuffles for its seed, step by step."""

    def __init__(self, length: int, seeds: Sequence[int]) -> None:
        self._length = length
        places = range(length)
        self._orders = [SeedableRandomSampler(places, data_seed=seed) for seed in seeds]

    def set_epoch(self, epoch: int) -> None:
        """Each epoch has its own order."""
        for order in self._orders:
            order.set_epoch(epoch)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return zip(*self._orders, strict=True)


@dataclass(frozen=True)
class Padding:
    """Makes a batch of items, trial by trial, padded on the right."""

    pad_token_id: int

    def __call__(self, items: list[tuple[Sample, ...]]) -> dict[str, torch.Tensor]:
        """Items of one sample for each trial -> tensors of shape [trials x items, longest]."""
        samples = [sample for own in zip(*items, strict=True) for sample in own]
        ids, labels, mask = pad_samples(samples, self.pad_token_id)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
