"""Attention that reads positions through its own query and key layers (DeBERTa, He et al. 2021,
arXiv 2006.03654).

Relative positions are the same for all samples: [1, positions, hidden], of which no row tells its
trial. In a pack each layer computes them once with every trial's adapter, and attention reads
them trial after trial, each trial's samples with that trial's positions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lorascope.adapters.stack import PackShape, PositionTurns

METHODS = ("disentangled_attention_bias", "disentangled_att_bias")
"""What reads positions in transformers (5.23): of DeBERTa-v2 and v3, and of the first DeBERTa."""
BY_LENGTH = ("disentangled_att_bias",)
"""Of these, what reads no more positions than the batch is long."""


class SharedPositions:
    """Lets the attention of a packed base take turns where it reads positions."""

    def __init__(self, base: nn.Module, shape: PackShape) -> None:
        self._shape = shape
        self._readers = [
            (module, name)
            for module in base.modules()
            for name in METHODS
            if hasattr(type(module), name)
        ]
        self.take_turns()

    def take_turns(self) -> None:
        """From now on, until `remove`."""
        for module, name in self._readers:
            own = getattr(type(module), name).__get__(module)
            setattr(module, name, partial(self._by_turns, own, name in BY_LENGTH))

    def remove(self) -> None:
        """Leave attention as it was."""
        for module, name in self._readers:
            vars(module).pop(name, None)

    def _by_turns(
        self, own: Callable[..., Tensor], by_length: bool, query: Tensor, key: Tensor, *others: Any
    ) -> Tensor:
        """Scores [trials x samples, ...] of `own`: query and key stand trial after trial."""
        shape = self._shape
        if not shape.adapters:
            return own(query, key, *others)
        scores = []
        shape.positions = turns = PositionTurns(by_length)
        try:
            parts = zip(query.chunk(shape.trials), key.chunk(shape.trials), strict=True)
            for turns.trial, part in enumerate(parts):
                scores.append(own(*part, *others))
        finally:
            shape.positions = None
        return scores[0] if len(scores) == 1 else torch.cat(scores)
