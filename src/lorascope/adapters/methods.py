"""What readers see of each adapter method."""

from __future__ import annotations

import math

from lorascope.records import Dial, Dials, Method


def _lora_scale(dials: Dials) -> float:
    """What B A is multiplied by: alpha / rank, under rsLoRA alpha / sqrt(rank)
    (Kalajdzievski 2023, arXiv 2312.03732)."""
    rank = float(dials["rank"])
    return float(dials["alpha"]) / (math.sqrt(rank) if dials["rslora"] else rank)


METHODS = {
    method.name: method
    for method in (
        Method(
            "lora",
            "LoRA",
            (
                Dial("rank", "rank", letter="r", is_axis=True, counts=True),
                Dial("alpha", "alpha", letter="a", times_learning_rate=True),
                Dial("rslora", "rsLoRA"),
                Dial("dora", "DoRA", counts=True),
            ),
            _lora_scale,
        ),
        Method("ia3", "IA3"),
    )
}


def method_of(name: str) -> Method:
    """The method `name`; one that only records tell of has its name alone."""
    return METHODS.get(name) or Method(name, name)
