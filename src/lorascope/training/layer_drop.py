"""Layer drop: in training, each trial passes over whole decoder layers, by its own draw (Fan et al.
2019, arXiv 1909.11556).

A dropped layer gives a trial's rows as it got them; they are not scaled, neither then nor when the
layer is kept. Dropped layers are computed all the same, and so every step takes the same time and
memory: other trials of a pack need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lorascope.adapters.decoder import decoder_layers
from lorascope.adapters.stack import PackShape, step_seed
from lorascope.errors import ModelError

SEEDS = 2**56
"""Number of seeds that `step_seed` gives."""


class LayerDrop:
    """Lets trials pass over the decoder's layers while these are in training mode.

    What is drawn depends on a trial's seed, the step, the micro-batch and the layer alone: neither
    the pack nor a resumed training changes it, and a checkpointed layer runs again as it ran.

    Args:
        rates: each trial's chance to pass over a layer, in the pack's order.

    Raises:
        ModelError: the base has no list of layers.
    """

    def __init__(self, base: Any, rates: Sequence[float], shape: PackShape) -> None:
        self._rates, self._shape = rates, shape
        name, layers = decoder_layers(base)
        self._names = [f"{name}.{index}" for index in range(len(layers))]
        self._drawn: tuple[int, int] | None = None
        self._masks = torch.empty(0)
        self._handles = [
            layer.register_forward_hook(self._hook(index), with_kwargs=True)
            for index, layer in enumerate(layers)
        ]

    def remove(self) -> None:
        """Leave the layers as they were."""
        for handle in self._handles:
            handle.remove()

    def kept(self, layer: str) -> list[bool]:
        """Whether each trial keeps the layer of this name in the present micro-batch."""
        pairs = zip(self._shape.seeds, self._rates, strict=True)
        return [step_seed(seed, *self._shape.draw, layer) >= rate * SEEDS for seed, rate in pairs]

    def _hook(self, index: int) -> Any:
        def hook(layer: nn.Module, args: Any, named: dict[str, Any], output: Any) -> Any:
            if not layer.training or not self._shape.adapters:
                return None
            given: Any = args[0] if args else named.get("hidden_states")
            result: Any = output[0] if isinstance(output, tuple) else output
            self._require_rows(self._names[index], given, result)
            mixed = self._mixed(index, given, result)
            return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

        return hook

    def _mixed(self, index: int, given: Tensor, result: Tensor) -> Tensor:
        """`result` [trials x samples, tokens, features] in rows of trials that keep the layer, and
        what it was `given` in the others: rows that are kept keep their bits."""
        if self._drawn != self._shape.draw:
            # All layers' at once, so that the host waits once a micro-batch at most.
            kept = [self.kept(name) for name in self._names]
            self._masks, self._drawn = torch.tensor(kept, device=result.device), self._shape.draw
        samples = len(result) // self._shape.trials
        masks = self._masks[index].to(result.device)
        rows = masks.repeat_interleave(samples).view(-1, 1, 1)
        # A layer may lie on another device than the one before.
        return torch.where(rows, result, given.to(result))

    def _require_rows(self, name: str, given: Any, result: Any) -> None:
        """Raise ModelError where no row of a layer's result tells its trial."""
        shapes = [tuple(getattr(tensor, "shape", ())) for tensor in (given, result)]
        rows = self._shape.batch[0]
        if shapes[0] != shapes[1] or len(shapes[0]) != 3 or shapes[0][0] != rows:
            raise ModelError(
                f"{name}: gets {shapes[0]} and gives {shapes[1]} for {rows} samples, so that it "
                "cannot be passed over. Set train.layer_drop=0."
            )
