"""Rules for a base whose layers are placed over several devices: what trains there what it trains
on one."""

from __future__ import annotations

from collections.abc import Callable

from lorascope.config import Config, DeviceKind, EngineKind
from lorascope.config.rule import Rule
from lorascope.config.shard_rules import DRAWN

STACKED = ("lora",)
"""Methods whose layers have copies of a trial's values on the device of their layer."""
ONE_DEVICE = "or leave runtime.place at 1."


def _placed(
    holds: Callable[[Config], bool], problem: str, remedy: str, key: str = "runtime.place"
) -> Rule:
    return Rule(key, lambda c: c.runtime.place == 1 or holds(c), problem, f"{remedy}, {ONE_DEVICE}")


OF_PLACES = [
    _placed(
        lambda c: c.runtime.shard == 1,
        "a base is divided weight by weight (runtime.shard) or placed layer by layer "
        "(runtime.place), and this asks for both",
        "Leave runtime.shard at 1, which any mode can do without",
    ),
    _placed(
        lambda c: c.runtime.device is not DeviceKind.cpu,
        "layers are placed over CUDA devices, and runtime.device=cpu has one memory for all",
        "Take runtime.device=cuda or auto",
    ),
    _placed(
        lambda c: c.adapter.kind in STACKED and not c.adapter.trained_ends(),
        "PEFT's own layers train this method, and a trial's values are one vector on one device",
        "Take LoRA, without lora.head and lora.embeddings",
    ),
    _placed(
        lambda c: getattr(c.adapter, "init", DRAWN[0]) in DRAWN,
        "lora.init names a beginning that is read out of the base's weights, or out of what they "
        "make of samples, and that was not tried on several devices",
        "Take lora.init=kaiming, gaussian or orthogonal",
    ),
    _placed(
        lambda c: c.train.qat is None,
        "train.qat rounds merged weights, and that was not tried on several devices",
        "Leave train.qat out",
    ),
    _placed(
        lambda c: c.engine.kind is EngineKind.local or c.engine.gpus == c.runtime.place,
        "a pack asks its cluster for another number of GPUs",
        "Give engine.gpus the number of runtime.place",
        key="engine.gpus",
    ),
]
