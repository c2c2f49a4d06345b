"""Bytes of all live tensors where storages grow and shrink: those of layers that several devices
divide, which torch's `fully_shard` puts together and takes apart in place."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from lorascope.meters.tracker import TensorTracker

UNFILLED = torch.ops.aten.empty.memory_format
"""How `fully_shard` makes the storages that it fills, empties and fills again."""


class ElasticTracker(TensorTracker):  # type: ignore[no-untyped-call]
    """While entered, storages that may grow count with what they have at the moment: those that
    were made unfilled, and those from before that an operation reads. The others count as in any
    tracker."""

    def __init__(self) -> None:
        super().__init__()
        self._elastic: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._elastic_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self.paused:
            return func(*args, **(kwargs or {}))
        self._watch(tree_leaves((args, kwargs)))
        # What was emptied since the last operation.
        self._count()
        result = func(*args, **(kwargs or {}))
        if func is UNFILLED:
            self._watch([result])
        self.add(tree_leaves(result))
        self._count()
        return result

    def _watch(self, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and not isinstance(tensor, DTensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._storages and key not in self._elastic:
                    self._elastic[key] = weakref.ref(storage, partial(self._forget, key))

    def _forget(self, key: int, _: object) -> None:
        self._elastic.pop(key, None)

    def _add_storage(self, storage: torch.UntypedStorage, size: int) -> None:
        if storage._cdata not in self._elastic:
            super()._add_storage(storage, size)

    def _count(self) -> None:
        """Bring the bytes of storages that may grow up to date."""
        known = [own() for own in list(self._elastic.values())]
        now = sum(storage.nbytes() for storage in known if storage is not None)
        self.live_bytes += now - self._elastic_bytes
        self._elastic_bytes = now
        self._raise_peaks()
