"""What `plan` prints: a line a trial; of a single one its parts too, and what fits which GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from lorascope.adapters.kinds import KINDS, kind_of
from lorascope.config import AdapterConfig
from lorascope.planning.arithmetic import (
    CUDA_CONTEXT_BYTES,
    GIGABYTE,
    GPU_SIZES_GB,
    UNUSABLE_SHARE,
    usable_bytes,
)
from lorascope.planning.capacity import capacity_of, largest_micro_batch, largest_rank
from lorascope.planning.fits import limit_of_one, stated_limit
from lorascope.planning.plan import PHASES, Prediction, deciding_phase, needed_bytes
from lorascope.planning.planned import Planned
from lorascope.planning.subject import PlanSubject
from lorascope.records import DevicePlan, MemoryPlan
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table

PARTS = (
    ("base_bytes", "base, constants included"),
    ("constant_bytes", "  quantization constants"),
    ("adapter_bytes", "adapter"),
    ("gradient_bytes", "gradients"),
    ("optimizer_bytes", "optimizer state"),
    ("activation_bytes", "activations saved"),
    ("logits_bytes", "logits of labelled positions"),
    ("dequantization_bytes", "largest dequantized weight"),
)


@dataclass(frozen=True)
class Axis:
    """A setting that tells trials apart where it varies, and is said once where it does not."""

    key: str
    header: str
    value: Callable[[Planned], Any]
    words: str = ""
    """Words for a value that all trials share; empty where that is not worth saying."""
    right: bool = True
    always: bool = False
    """Whether it has a column in any case."""


def _adapter(planned: Planned) -> str:
    """LoRA on all_linear."""
    config = planned.config.adapter
    targets = "+".join(sorted(config.modules)) or config.targets.value
    return f"{kind_of(config).method.label} on {targets}"


def _setting_axes(in_names: bool) -> Iterator[Axis]:
    """Settings of adapters that tell trials apart, in their names or beside them."""
    dials = dict.fromkeys(dial for kind in KINDS.values() for dial in kind.method.dials)
    headers = {dial.name: dial.header for dial in dials}
    for kind in KINDS.values():
        own = {one.name for one in fields(kind.config)} - {
            one.name for one in fields(AdapterConfig)
        }
        for name in (*kind.packed, *sorted(own)):
            headers.setdefault(name, name.replace("_", " ").capitalize())
    lettered = {dial.name for dial in dials if dial.letter}
    for name, header in headers.items():
        if (name in lettered) is in_names:
            yield Axis(name, header, partial(_setting, name), right=in_names, always=in_names)


def _setting(name: str, planned: Planned) -> Any:
    value = getattr(planned.config.adapter, name, None)
    if isinstance(value, bool):
        return units.yes_no(value)
    if isinstance(value, dict):
        return ", ".join(f"{pattern}: {one:g}" for pattern, one in value.items())
    return units.number(value) if isinstance(value, float) else value


def _of_subject(get: Callable[[PlanSubject], Any]) -> Callable[[Planned], Any]:
    return lambda planned: None if planned.subject is None else get(planned.subject)


AXES = (
    Axis("model", "Model", lambda p: p.label, "{}", right=False),
    Axis("data", "Data", lambda p: p.config.data.name, right=False),
    Axis("quant", "Mode", lambda p: p.config.quant.name, right=False, always=True),
    *_setting_axes(in_names=True),
    Axis("seed", "Seed", lambda p: p.config.seed, always=True),
    Axis("device", "Device", _of_subject(lambda s: s.device), "on {}", right=False),
    Axis(
        "compute",
        "Computes in",
        _of_subject(lambda s: str(s.spec.compute).removeprefix("torch.")),
        "computing in {}",
        right=False,
    ),
    Axis("adapter", "Adapter", _adapter, "{}", right=False),
    *_setting_axes(in_names=False),
    Axis("train", "Training", lambda p: p.config.train.name, right=False),
    Axis("batch", "Batch", lambda p: p.config.train.batch_size),
    Axis(
        "micro_batch",
        "Micro-batch",
        _of_subject(lambda s: f"{s.train.samples} x {s.train.tokens}"),
        "micro-batch {} tokens",
    ),
    Axis(
        "evaluation",
        "Evaluation",
        _of_subject(lambda s: f"{s.evaluation[0].samples} x {s.evaluation[0].tokens}"),
        "evaluation {}",
    ),
    Axis(
        "checkpointing",
        "Checkpointing",
        _of_subject(lambda s: units.yes_no(s.training.gradient_checkpointing)),
        "gradient checkpointing {}",
        right=False,
    ),
    Axis(
        "shards",
        "Devices",
        lambda p: None if p.config.runtime.shard == 1 else p.config.runtime.shard,
        "each of {} devices that divide the base",
    ),
    Axis(
        "places",
        "Placed over",
        lambda p: None if p.config.runtime.place == 1 else p.config.runtime.place,
        "the fullest of {} devices that layers are placed over",
    ),
    Axis("attention", "Attention", lambda p: p.config.model.attention, right=False),
    Axis("limit", "Limit, GB", lambda p: p.config.runtime.memory_limit_gb),
)


def conditions(planned: Sequence[Planned]) -> str:
    """Settings that all trials share, in words."""
    said = []
    for axis in AXES:
        values = {axis.value(one) for one in planned} - {None}
        if axis.words and len(values) == 1:
            said.append(axis.words.format(*values))
    return ", ".join(said)


def table(planned: Sequence[Planned]) -> Table[Planned]:
    """One line a trial, with a column for every setting that varies."""
    varying = [a for a in AXES if a.always or len({a.value(one) for one in planned}) > 1]
    return Table(
        (
            *(Column(a.key, a.header, right=a.right, get=a.value) for a in varying),
            _bytes_column("base_bytes", "Base", lambda plan: plan.base_bytes),
            _bytes_column("states_bytes", "States", _states_bytes),
            _bytes_column("activation_bytes", "Activations", lambda plan: plan.activation_bytes),
            _bytes_column("logits_bytes", "Logits", lambda plan: plan.logits_bytes),
            *(
                _bytes_column(f"{phase}_bytes", f"{phase.capitalize()} peak", _peak_bytes(phase))
                for phase in (*PHASES, "merge")
            ),
            Column("fits", "Fits", right=False, get=_fits),
            Column("error", "Not planned", right=False, get=lambda one: one.error),
        ),
        planned,
    )


def _bytes_column(key: str, header: str, get: Callable[[MemoryPlan], int | None]) -> Column:
    def cell(planned: Planned) -> int | None:
        return None if planned.prediction is None else get(planned.prediction.plan)

    return Column(key, header, units.size, get=cell)


def _states_bytes(plan: MemoryPlan) -> int:
    """Adapter, gradients and optimizer state."""
    return plan.adapter_bytes + plan.gradient_bytes + plan.optimizer_bytes


def _peak_bytes(phase: str) -> Callable[[MemoryPlan], int | None]:
    """None where the phase could not be traced."""
    return lambda plan: plan.peak_bytes.get(phase)


def _fits(planned: Planned) -> str | None:
    """The smallest of GPU_SIZES_GB, or of runtime.memory_limit_gb whether it does; and what
    decides it, where that is not the training."""
    if planned.prediction is None:
        return None
    plan, limit_gb = planned.prediction.plan, planned.config.runtime.memory_limit_gb
    if limit_gb is not None:
        fits = needed_bytes(plan) <= _stated_bytes(planned, plan, limit_gb)
        return f"{'' if fits else 'not '}{limit_gb:g} GB{deciding(plan)}"
    needed = needed_bytes(plan)
    sizes = [gb for gb in GPU_SIZES_GB if needed <= usable_bytes(gb * GIGABYTE, plan.device)]
    return f"{f'{sizes[0]} GB' if sizes else 'none listed'}{deciding(plan)}"


def _stated_bytes(planned: Planned, plan: MemoryPlan, limit_gb: float) -> int:
    """Of runtime.memory_limit_gb, for one process."""
    return limit_of_one(stated_limit(limit_gb), planned.config.runtime.shard, plan.device).bytes


def deciding(plan: MemoryPlan) -> str:
    """The phase that needs most, where that is not the training."""
    phase = deciding_phase(plan)
    return "" if phase == "train" else f" ({phase})"


UNPADDED = "train peak, if no batch is padded"


def details(plan: MemoryPlan, unpadded_train_bytes: int | None) -> str:
    """A plan part by part, and the training peak without padding where that is another case."""
    rows = [(words, getattr(plan, key)) for key, words in PARTS]
    if unpadded_train_bytes is not None:
        rows.append((UNPADDED, unpadded_train_bytes))
    width = max(len(words) for words, _ in rows)
    return "\n".join(f"{words:<{width}}  {units.size(size):>8}" for words, size in rows) + "\n"


def devices(plan: MemoryPlan) -> Table[DevicePlan]:
    """A line for each device that layers are placed over."""
    columns = [Column("layers", "Layers", get=lambda one: one.layers)]
    for key in ("base_bytes", "states_bytes", "activation_bytes"):
        header = key.removesuffix("_bytes").capitalize()
        columns.append(Column(key, header, units.size, get=partial(_own, key)))
    for phase in (*PHASES, "merge"):
        peak = partial(_peak_of_device, phase)
        columns.append(Column(f"{phase}_bytes", f"{phase.capitalize()} peak", units.size, get=peak))
    return Table(tuple(columns), plan.devices)


def _own(key: str, device: DevicePlan) -> int:
    value: int = getattr(device, key)
    return value


def _peak_of_device(phase: str, device: DevicePlan) -> int | None:
    return device.peak_bytes.get(phase)


def reserve(planned: Sequence[Planned]) -> str:
    """The reserve on a GPU, where sizes of GPUs were judged."""
    judged = any(
        one.subject is not None
        and one.subject.device == "cuda"
        and one.config.runtime.memory_limit_gb is None
        for one in planned
    )
    if not judged:
        return ""
    return (
        f"\nOf each GPU {CUDA_CONTEXT_BYTES / GIGABYTE:g} GB and {UNUSABLE_SHARE:.0%} are left for "
        "the CUDA context and fragmentation.\n"
    )


@dataclass(frozen=True)
class CapacityRow:
    """Largest micro-batch and rank for one memory size."""

    memory_gb: float
    fits: str
    largest_micro_batch: int
    largest_rank: int


def capacities(planned: Planned, prediction: Prediction) -> Table[CapacityRow]:
    """What fits each memory size. For a size that the configuration names the answers are traced,
    for others read from lines."""
    assert planned.subject is not None
    plan, limit_gb = prediction.plan, planned.config.runtime.memory_limit_gb
    capacity = capacity_of(planned.subject, prediction)
    sizes = {size: usable_bytes(size * GIGABYTE, plan.device) for size in GPU_SIZES_GB}
    limits = sizes if limit_gb is None else {limit_gb: _stated_bytes(planned, plan, limit_gb)}
    rows = [
        CapacityRow(
            memory_gb=size,
            fits="yes" if needed_bytes(plan) <= limit else f"no{deciding(plan)}",
            # Of all devices: of each one's samples the capacity tells.
            largest_micro_batch=planned.subject.shards
            * largest_micro_batch(capacity, limit, limit_gb is not None),
            largest_rank=largest_rank(capacity, limit, limit_gb is not None),
        )
        for size, limit in limits.items()
    ]
    return Table(
        (
            Column("memory_gb", "Memory, GB", units.number),
            Column("fits", "Fits", right=False),
            Column("largest_micro_batch", "Largest micro-batch"),
            Column("largest_rank", "Largest rank (up to 512)"),
        ),
        rows,
    )
