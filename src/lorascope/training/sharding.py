"""A base whose layers are divided over several devices, weight by weight (torch's `fully_shard`).

Each process holds its part of every layer's weights. A layer is put together on all of them when
its turn comes, forward and backward, and taken apart again. What stands outside the layers,
embeddings, final norm and head, is whole everywhere: it is in use from the first layer to the loss,
so that a part of it would save nothing at the peak.

Each layer is sharded by itself, without a root around them: transformers' models answer for
themselves then, where `objectives.logits` copies them. Layers are not put together ahead of their
turn, which costs time on devices that could compute meanwhile.
"""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from lorascope.adapters.decoder import decoder_layers
from lorascope.errors import ConfigError
from lorascope.machine.devices import Device
from lorascope.machine.memory import give_back_freed_memory
from lorascope.machine.ranks import Ranks
from lorascope.training.pack import own_dropout


def divide_layers(base: PreTrainedModel, device: Device, ranks: Ranks) -> None:
    """Leave this process its part of each layer, on its device. The base was put on the CPU: it
    goes through the computer's memory, not through the device's. One process leaves it as it is.

    Raises:
        ModelError: the base has no list of layers.
        ConfigError: it has dropout of its own, whose draws would not be one process's.
    """
    if ranks.count == 1:
        return
    _refuse_dropout(base)
    mesh = init_device_mesh(device.kind, (ranks.count,))
    _, layers = decoder_layers(base)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    base.to(torch.device(device.kind))
    # As much as the whole base, of which there are as many as processes.
    give_back_freed_memory()


def _refuse_dropout(base: PreTrainedModel) -> None:
    found = own_dropout(base)
    if found is not None:
        raise ConfigError(
            "runtime.shard", "more than 1",
            f"{found}, and each device would draw as if its rows were all there are",
            "Set model.dropout=0 where the base gets a head for classes, or runtime.shard=1.",
        )  # fmt: skip
