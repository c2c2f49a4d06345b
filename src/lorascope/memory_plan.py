"""What a trial needs before it runs: bytes by part and phase, from its configuration alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from lorascope.fake_model import FakeModelSpec
from lorascope.full_depth import evaluation_bytes, training_trace
from lorascope.maths.memory import (
    CUBLAS_WORKSPACE_BYTES,
    MergeSizes,
    affine_through,
    extrapolated,
    merge_bytes,
)
from lorascope.memory_trace import HEAD_SEGMENTS, Trace
from lorascope.plan_subject import PlanSubject
from lorascope.quantization import FOUR_BIT, unquantized_dtype
from lorascope.records import MemoryPlan
from lorascope.transformers_config import stored_dtype

PHASES = ("load", "train", "evaluate")
"""Of a trial, in their order."""


@dataclass(frozen=True)
class Prediction:
    """A plan, and the training step that it was read from."""

    plan: MemoryPlan
    training: Trace


def plan_memory(subject: PlanSubject) -> MemoryPlan:
    """Predict all phases.

    Raises:
        ModelError: the architecture is unknown.
        ConfigError: the adapter's targets match no layer.
    """
    rank = subject.spec.lora.rank
    return predict_ranks(subject, [rank])[rank].plan


def predict_ranks(subject: PlanSubject, ranks: Sequence[int]) -> dict[int, Prediction]:
    """Predict several ranks: the lowest and the highest are traced, those between lie on the line.

    A peak never bends upwards between two ranks, so that the line is at least what they need.
    """
    started = time.perf_counter()
    lowest, highest = min(ranks), max(ranks)
    ends = [_trace(at_rank(subject, rank)) for rank in sorted({lowest, highest})]
    seconds = (time.perf_counter() - started) / len(ranks)
    predictions = {}
    for rank in ranks:
        train, evaluation = _between(ends[0], ends[-1], lowest, highest, rank)
        plan = _plan(at_rank(subject, rank), train, evaluation, seconds)
        predictions[rank] = Prediction(plan, train)
    return predictions


def _trace(subject: PlanSubject) -> tuple[Trace, int]:
    """A training step, and the peak of evaluation."""
    return training_trace(subject), evaluation_bytes(subject)


def at_rank(subject: PlanSubject, rank: int) -> PlanSubject:
    """The same with an adapter of another rank."""
    lora = replace(subject.spec.lora, rank=rank)
    return replace(subject, spec=replace(subject.spec, lora=lora))


def _between(
    low: tuple[Trace, int], high: tuple[Trace, int], lowest: int, highest: int, rank: int
) -> tuple[Trace, int]:
    if rank in (lowest, highest):
        return low if rank == lowest else high
    start, slope = affine_through((lowest, low[1]), (highest, high[1]))
    return Trace(
        extrapolated(low[0].segments, high[0].segments, lowest, highest, rank),
        extrapolated(low[0].parts, high[0].parts, lowest, highest, rank),
    ), round(start + slope * rank)


def _plan(subject: PlanSubject, train: Trace, evaluation: int, seconds: float) -> MemoryPlan:
    parts = train.parts
    return MemoryPlan(
        device=subject.settings.device,
        micro_batch_size=subject.train.samples,
        tokens=subject.train.tokens,
        base_bytes=parts["base"],
        constant_bytes=parts["constants"],
        adapter_bytes=parts["adapter"],
        gradient_bytes=parts["gradients"],
        optimizer_bytes=parts["optimizer"],
        activation_bytes=parts["activations"],
        logits_bytes=max(parts[name] for name in HEAD_SEGMENTS),
        dequantization_bytes=parts["largest_quantized"] * _dequantized_width(subject.spec),
        peak_bytes={
            "load": _load_peak(subject, parts),
            "train": peak_of(train, subject),
            "evaluate": evaluation + _workspace_bytes(subject),
            "merge": _merge_peak(subject, parts),
        },
        seconds=seconds,
    )


def peak_of(trace: Trace, subject: PlanSubject) -> int:
    """The highest segment."""
    return max(trace.segments.values()) + _workspace_bytes(subject)


def _workspace_bytes(subject: PlanSubject) -> int:
    """On CUDA cuBLAS takes its workspace from the same allocator."""
    return CUBLAS_WORKSPACE_BYTES if subject.settings.device == "cuda" else 0


def needed_bytes(plan: MemoryPlan) -> int:
    """What a trial needs while it loads, trains and evaluates."""
    return max(plan.peak_bytes[phase] for phase in PHASES)


def _load_peak(subject: PlanSubject, parts: Mapping[str, int]) -> int:
    """Base and adapter, and the stored copy of the largest parameter that loading casts."""
    stored = unquantized_dtype(subject.spec.quant, stored_dtype(subject.spec.config))
    cast = 0 if stored is subject.spec.compute else parts["largest_other"] * stored.itemsize
    return parts["base"] + max(cast, parts["adapter"])


def _merge_peak(subject: PlanSubject, parts: Mapping[str, int]) -> int:
    in_float32 = subject.spec.compute is torch.float32
    sizes = MergeSizes(
        base_bytes=parts["base"],
        parameters=parts["parameters"],
        copied_parameters=parts["quantized_parameters"] if in_float32 else parts["parameters"],
        adapted_parameters=parts["adapted_parameters"],
        largest_parameters=max(parts["largest_quantized"], parts["largest_other"]),
        adapter_bytes=parts["adapter"],
    )
    return merge_bytes(sizes, on_cpu=subject.settings.device == "cpu")


def _dequantized_width(spec: FakeModelSpec) -> int:
    """Bytes a weight of its temporary copies, at most: 4 bits are dequantized to the stored type
    in the backward pass and cast to the computing one."""
    if spec.quant.storage in FOUR_BIT:
        stored = unquantized_dtype(spec.quant, stored_dtype(spec.config))
        return spec.compute.itemsize + (0 if stored is spec.compute else stored.itemsize)
    return spec.compute.itemsize
