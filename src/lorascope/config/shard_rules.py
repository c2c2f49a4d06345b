"""Rules for a base that several devices divide: what trains there what it trains on one."""

from __future__ import annotations

from collections.abc import Callable

from lorascope.config import Config, DeviceKind, EngineKind, Precision
from lorascope.config.rule import Rule

COPIES = ("full", "ln", "bitfit")
"""Methods that begin as copies of the base's own parameters."""
DRAWN = ("kaiming", "gaussian", "orthogonal")
"""LoRA's beginnings that read no weight of the base."""
OWN_DRAWS = ("lora",)
"""Methods whose dropout is drawn row by row, whichever device has the row."""
ONE_DEVICE = "or leave runtime.shard at 1."


def _divided(
    holds: Callable[[Config], bool], problem: str, remedy: str, key: str = "runtime.shard"
) -> Rule:
    return Rule(key, lambda c: c.runtime.shard == 1 or holds(c), problem, f"{remedy}, {ONE_DEVICE}")


def idle_devices(config: Config) -> str | None:
    """What to warn of where a device gets no sample of a micro-batch; it divides the base all the
    same, so that nothing is wrong but the time."""
    shards, samples = config.runtime.shard, config.train.micro_batch_size
    if samples >= shards:
        return None
    return (
        f"runtime.shard={shards}, train.micro_batch_size={samples}: of each micro-batch "
        f"{shards - samples} of {shards} devices have no sample of their own, and compute one for "
        f"company. Set train.micro_batch_size={shards} or more where memory allows it."
    )


OF_SHARDS = [
    _divided(
        lambda c: c.quant.storage.value in list(Precision),
        "only a base of plain numbers is divided over devices. Of quantized weights fully_shard "
        "loses the scales: 4 bits trained something else without a word (a loss of 6.0225 nats "
        "that should be 5.9270), and INT8 broke off",
        "Store the base as it is, with quant=bf16, fp16 or fp32",
    ),
    _divided(
        lambda c: c.adapter.kind not in COPIES,
        "this method trains copies of the base's own parameters, of which each device has a part",
        "Take another method, such as LoRA",
    ),
    _divided(
        lambda c: c.adapter.kind != "peft",
        "what a method of adapter=peft reads of the base is not known here, so that nothing says "
        "that it trains the same on a part of each layer",
        "Take a method with a section of its own, such as LoRA",
    ),
    _divided(
        lambda c: not getattr(c.adapter, "dora", False),
        "DoRA begins with the norms of whole weights, and each device has a part of them",
        "Leave lora.dora out",
    ),
    _divided(
        lambda c: c.adapter.kind not in OWN_DRAWS or getattr(c.adapter, "init", "") in DRAWN,
        "lora.init names a beginning that is read out of whole weights, or out of what they make "
        "of samples, and each device has a part of them",
        "Take lora.init=kaiming, gaussian or orthogonal",
    ),
    _divided(
        lambda c: (
            not getattr(c.adapter, "dropout", 0.0)
            or (c.adapter.kind in OWN_DRAWS and not c.adapter.trained_ends())
        ),
        "this method's dropout, or LoRA's beside a trained head or embeddings, draws for the rows "
        "that a device has, and would draw otherwise on another number of them",
        "Set adapter.dropout=0",
    ),
    _divided(
        lambda c: c.train.qat is None,
        "train.qat rounds to a grid, which makes a step of a difference in the last digit: after "
        "20 steps losses were 0.009 nats from those of one device",
        "Leave train.qat out",
    ),
    _divided(
        lambda c: (
            c.engine.kind is EngineKind.local
            or c.runtime.device is DeviceKind.cpu
            or c.engine.gpus in (0, c.runtime.shard)
        ),
        "a pack asks its cluster for another number of GPUs",
        "Give engine.gpus the number of runtime.shard",
        key="engine.gpus",
    ),
]
