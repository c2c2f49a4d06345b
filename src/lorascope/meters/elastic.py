"""Bytes of all live tensors where storages grow and shrink: those of layers that several devices
divide, which torch's `fully_shard` puts together and takes apart in place."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from lorascope.meters.tracker import TensorTracker


class ElasticTracker(TensorTracker):  # type: ignore[no-untyped-call]
    """While entered, what every storage has at the moment counts, operation by operation; those of
    tensors that an operation reads too, as one from before may have grown."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self.paused:
            return func(*args, **(kwargs or {}))
        self.add(tree_leaves((args, kwargs)))
        result = func(*args, **(kwargs or {}))
        self.add(tree_leaves(result))
        self._count()
        return result

    def _add_storage(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = weakref.ref(storage, lambda _: self._storages.pop(key, None))

    def _count(self) -> None:
        known = [own() for own in list(self._storages.values())]
        self.live_bytes = sum(storage.nbytes() for storage in known if storage is not None)
        self._raise_peaks()
