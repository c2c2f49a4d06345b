"""Processes that train one pack together, each on a device of its own: what they tell each other.

Each has a part of the base's weights, and computes a part of each batch's rows. What they add up is
the same number on all of them, to the bit, so that each takes the same decisions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from lorascope.config import DeviceKind
from lorascope.errors import DeviceError
from lorascope.machine.devices import choose_device

LONGEST_WAIT = timedelta(hours=2)
"""For one process to save what all have trained. Whether one has died, whoever started them sees at
once."""
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
INTERFACE = "GLOO_SOCKET_IFNAME"


@dataclass(frozen=True)
class Share:
    """The samples of a micro-batch that one process computes, of each trial equally many."""

    first: int
    count: int
    whole: int
    """Samples of all processes together."""
    idle: bool = False
    """Whether there was none left for this process: it computes another's for company, as all must
    go through the layers together, and adds nothing."""


@dataclass(frozen=True)
class Ranks:
    """One of the processes of a pack, and their number. One process alone tells itself nothing, and
    no number passes through here."""

    rank: int = 0
    count: int = 1

    def share(self, samples: int) -> Share:
        """This process's part of so many samples; the first ones have one more where it does not
        come out even."""
        each, more = divmod(samples, self.count)
        first = self.rank * each + min(self.rank, more)
        count = each + (self.rank < more)
        return Share(first, count, samples) if count else Share(0, 1, samples, idle=True)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; `tensor` stays as it is."""
        return tensor if self.count == 1 else self._added(tensor.clone())

    def add(self, tensors: Sequence[Tensor | None]) -> None:
        """Put the sum over all processes in place of each tensor."""
        if self.count > 1:
            for tensor in tensors:
                if tensor is not None:
                    self._added(tensor)

    def add_counts(self, counts: Sequence[int]) -> list[int]:
        """The sum of each over all processes."""
        return list(counts) if self.count == 1 else self._added(torch.tensor(counts)).tolist()

    def agreed(self, asked: bool) -> bool:
        """What the first process says."""
        if self.count == 1:
            return asked
        told = torch.tensor([asked], dtype=torch.int64)
        distributed.broadcast(told, 0)
        return bool(told)

    def first(self, action: Callable[[], None]) -> None:
        """Let the first process alone do what writes files; what it raises is raised on all."""
        failed: list[Any] = [None]
        if self.rank == 0:
            try:
                action()
            except Exception as error:
                failed = [error]
        if self.count > 1:
            distributed.broadcast_object_list(failed, 0)
        if failed[0] is not None:
            raise failed[0]

    def require_equal(self, tensors: Sequence[Tensor]) -> None:
        """Raise RuntimeError where a value is not the same on all processes, to the bit."""
        if self.count == 1:
            return
        sums = [tensor.view(torch.int32).sum(dtype=torch.int64).cpu() for tensor in tensors]
        least, most = torch.stack(sums), torch.stack(sums)
        distributed.all_reduce(least, distributed.ReduceOp.MIN)
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
        if not torch.equal(least, most):
            raise RuntimeError(
                "the adapters of a sharded training are not the same on all of its processes, as "
                "on devices of different kinds. Use equal ones, or runtime.shard=1."
            )

    def _added(self, tensor: Tensor) -> Tensor:
        distributed.all_reduce(tensor)
        return tensor


ALONE = Ranks()


def use_own_device(wanted: DeviceKind, ranks: Ranks) -> str:
    """Take this process's own of the devices that are here; its kind, cpu or cuda. DeviceError
    where there are fewer than processes."""
    kind = choose_device(wanted).kind
    if kind == "cuda":
        count = torch.cuda.device_count()
        if count < ranks.count:
            raise DeviceError(
                f"runtime.shard={ranks.count}: torch sees {count} CUDA device"
                f"{'' if count == 1 else 's'} here, and each process takes one. Use a smaller "
                "runtime.shard, or let CUDA_VISIBLE_DEVICES name more."
            )
        torch.cuda.set_device(ranks.rank)
    return kind


def join(ranks: Ranks, kind: str, meeting: Path) -> None:
    """Find the other processes, all of this computer.

    Args:
        kind: of the devices, cpu or cuda; this process's is already chosen.
        meeting: a file that all of them name, and that is not there yet.
    """
    # A name that a computer has for others may lead nowhere.
    os.environ.setdefault(INTERFACE, "lo0" if sys.platform == "darwin" else "lo")
    distributed.init_process_group(
        BACKENDS[kind],
        init_method=f"file://{meeting}",
        rank=ranks.rank,
        world_size=ranks.count,
        timeout=LONGEST_WAIT,
    )


def leave() -> None:
    """Part from the other processes, which do the same."""
    distributed.destroy_process_group()
