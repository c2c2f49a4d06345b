"""Memory of a base whose layers are placed over several devices: of each device by itself.

The first is planned as a model of its own layers, with all that stands outside them and the vectors
of all adapters. Each other one is traced as a model whose layers lie elsewhere than all else, of
which only what is there counts: weights, copies of the adapters, and what hooks bring.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

import torch

from lorascope.bases.transformers_config import text_config, with_layers
from lorascope.planning.fake_model import FakeModelSpec, causal_model
from lorascope.planning.subject import PlanSubject
from lorascope.planning.trace import Trace
from lorascope.quantizers.placing import placement_over
from lorascope.records import DevicePlan, MemoryPlan

T = TypeVar("T")
STATES = ("adapter", "gradients", "optimizer", "best")
"""Parts of a trace that are all on the first device."""


def device_specs(spec: FakeModelSpec, places: int) -> list[tuple[int, FakeModelSpec]]:
    """Number of layers of each device, and the model to trace for it.

    Raises:
        ConfigError: there are more devices than layers.
        ModelError: the architecture is unknown.
    """
    whole = text_config(spec.config)
    with torch.device("meta"):
        empty = causal_model(whole, spec)
    counts = placement_over(empty, spec.quant, [str(place) for place in range(places)]).counts
    starts = [0, *accumulate(counts)]
    parts = []
    for place, (start, count) in enumerate(zip(starts, counts, strict=False)):
        config = with_layers(whole, range(start, start + count)).to_dict()
        config = {**config, "dtype": spec.config.get("dtype", spec.config.get("torch_dtype"))}
        parts.append((count, replace(spec, config=config, elsewhere=place > 0)))
    return parts


def each_device(
    spec: FakeModelSpec, places: int, plan: Callable[[FakeModelSpec], T]
) -> list[tuple[int, T]]:
    """Number of layers, and what `plan` says, of each device; equal ones are planned once."""
    known: dict[str, T] = {}
    found = []
    for count, own in device_specs(spec, places):
        key = json.dumps([own.elsewhere, own.config], sort_keys=True, default=str)
        if key not in known:
            known[key] = plan(own)
        found.append((count, known[key]))
    return found


def with_all_states(train: Trace, whole: Trace, subject: PlanSubject) -> Trace:
    """The first device's step: `train` has its own layers' adapters, and it holds those of the
    `whole` model, and what the last layer sends back."""
    more = {name: whole.parts[name] - train.parts[name] for name in STATES}
    text = text_config(subject.spec.config).get_text_config()
    rows = len(subject.spec.pack) * subject.train.samples * subject.train.tokens
    returned = rows * int(text.hidden_size) * subject.spec.compute.itemsize
    parts = {name: size + more.get(name, 0) for name, size in train.parts.items()}
    parts |= {name: whole.parts[name] for name in ("saved_adapter", "reading")}
    segments = {n: peak + sum(more.values()) + returned for n, peak in train.segments.items()}
    return replace(train, segments=segments, parts=parts)


def of_devices(plans: Sequence[tuple[int, MemoryPlan]], seconds: float) -> MemoryPlan:
    """One plan of several devices': parts are those of the device that training fills most, peaks
    the highest."""
    phases = dict.fromkeys(phase for _, plan in plans for phase in plan.peak_bytes)
    peaks = {phase: max(plan.peak_bytes[phase] for _, plan in plans) for phase in phases}
    _, fullest = max(plans, key=lambda each: each[1].peak_bytes["train"])
    devices = [_device(*each) for each in plans]
    return replace(fullest, peak_bytes=peaks, devices=devices, seconds=seconds)


def _device(layers: int, plan: MemoryPlan) -> DevicePlan:
    states = plan.adapter_bytes + plan.gradient_bytes + plan.optimizer_bytes
    return DevicePlan(layers, plan.base_bytes, states, plan.activation_bytes, plan.peak_bytes)
