"""Memory of a trial before it runs: bytes by part and phase, from its configuration alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lorascope.adapters.kinds import at_rank as adapter_at_rank
from lorascope.adapters.kinds import is_packed, rank_of
from lorascope.bases.folder import SHARD_BYTES
from lorascope.bases.transformers_config import stored_dtype
from lorascope.counting.parameters import padded_rank
from lorascope.objectives.kinds import objective_of
from lorascope.planning.arithmetic import (
    CUBLAS_WORKSPACE_BYTES,
    affine_through,
    block_bytes,
    extrapolated,
)
from lorascope.planning.depth import evaluation_bytes, training_trace
from lorascope.planning.fake_model import FakeModelSpec
from lorascope.planning.placed import each_device, of_devices, with_all_states
from lorascope.planning.subject import PlanSubject
from lorascope.planning.trace import HEAD_SEGMENTS, Trace
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.quantizers.loading import unquantized_dtype
from lorascope.records import MemoryPlan

PHASES = ("load", "train", "evaluate", "score")
"""Phases of a trial in their order; a plan says "score" where its rows to score are known."""


@dataclass(frozen=True)
class Prediction:
    """A plan, and what its training peak was read from."""

    plan: MemoryPlan
    training: Trace
    """A step."""
    validation_bytes: int
    """The peak of a validation between two steps; 0 without one."""


def plan_memory(subject: PlanSubject) -> MemoryPlan:
    """Predict all phases.

    Raises:
        ModelError: the architecture is unknown.
        ConfigError: the adapter's targets match no layer.
    """
    if subject.places > 1:
        return _predict_placed(subject).plan
    started = time.perf_counter()
    train, evaluation = training_trace(subject), evaluation_bytes(subject)
    return _of_traces(subject, train, evaluation, started)


def _of_traces(
    subject: PlanSubject, train: Trace, evaluation: int, started: float, more: int = 0
) -> MemoryPlan:
    """
    Args:
        more: bytes that an evaluation has beside what is traced.
    """
    alone = evaluation
    if subject.spec.beside and subject.training.validate_every_steps:
        # The largest adapter, where the others do not wait as they do in the end.
        alone = evaluation_bytes(at_rank(subject, rank_of(subject.spec.pack[-1])))
    validation = _validation_bytes(subject, train, alone + more)
    seconds = time.perf_counter() - started
    return _plan(subject, train, evaluation + more, validation, seconds)


def _predict_placed(subject: PlanSubject) -> Prediction:
    """Of a base whose layers are placed over several devices."""
    started = time.perf_counter()
    whole = training_trace(replace(subject, places=1))

    def plan(spec: FakeModelSpec) -> MemoryPlan:
        own = replace(subject, spec=spec, places=1)
        train, evaluation = training_trace(own), evaluation_bytes(own)
        if spec.elsewhere:
            return _of_traces(own, train, evaluation, started)
        # What is validated is on the first device whole, and on each layer's a part of it.
        more = whole.parts["saved_adapter"] - train.parts["saved_adapter"]
        train = with_all_states(train, whole, own)
        return _of_traces(own, train, evaluation, started, more)

    plans = each_device(subject.spec, subject.places, plan)
    return Prediction(of_devices(plans, time.perf_counter() - started), whole, 0)


def plan_pack(subject: PlanSubject, alone: Mapping[int, Prediction]) -> MemoryPlan:
    """What `plan_memory` says of a pack, from `predict_ranks` of its trials: validation is that of
    the highest rank's adapter, while the others wait."""
    if subject.places > 1:
        return plan_memory(subject)
    started = time.perf_counter()
    train = training_trace(subject)
    highest = alone[rank_of(subject.spec.pack[-1])].plan
    block = block_bytes(subject.device)
    waiting = [
        alone[rank_of(own)].training.parts["saved_adapter"] for own in subject.spec.pack[:-1]
    ]
    largest = highest.peak_bytes["evaluate"] - workspace_bytes(subject.device)
    evaluation = largest + sum(-(-size // block) * block for size in waiting)
    validation = _validation_bytes(subject, train, largest)
    return _plan(subject, train, evaluation, validation, time.perf_counter() - started)


def predict_ranks(subject: PlanSubject, ranks: Sequence[int]) -> dict[int, Prediction]:
    """Predict a trial at several ranks: the lowest and the highest are traced, those between lie on
    the line; training pads them.

    A peak never bends upwards between two ranks, so that the line is at least what they need.
    """
    if subject.places > 1:
        return {rank: _predict_placed(at_rank(subject, rank)) for rank in ranks}
    started = time.perf_counter()
    lowest, highest = min(ranks), max(ranks)
    ends = {
        rank: (training_trace(at_rank(subject, rank)), evaluation_bytes(at_rank(subject, rank)))
        for rank in {lowest, highest}
    }
    seconds = (time.perf_counter() - started) / len(ranks)
    predictions, padded = {}, is_packed(subject.spec.adapter)
    for rank in ranks:
        train = _between(ends[lowest][0], ends[highest][0], lowest, highest, rank, padded)
        evaluation = ends[lowest][1]
        if lowest < highest:
            start, slope = affine_through((lowest, evaluation), (highest, ends[highest][1]))
            evaluation = round(start + slope * rank)
        alone = at_rank(subject, rank)
        validation = _validation_bytes(alone, train, evaluation)
        plan = _plan(alone, train, evaluation, validation, seconds)
        predictions[rank] = Prediction(plan, train, validation)
    return predictions


def at_rank(subject: PlanSubject, rank: int) -> PlanSubject:
    """A trial alone, with an adapter of this rank."""
    adapter = adapter_at_rank(subject.spec.adapter, rank)
    return replace(subject, spec=replace(subject.spec, adapter=adapter, beside=()))


def _between(low: Trace, high: Trace, lowest: int, highest: int, rank: int, padded: bool) -> Trace:
    if rank in (lowest, highest):
        return low if rank == lowest else high
    three = (lowest, highest, rank)
    first, second, wanted = (padded_rank(r) if padded else r for r in three)
    segments, parts = low.segments, low.parts
    if first < second:
        segments = extrapolated(low.segments, high.segments, first, second, wanted)
        parts = extrapolated(low.parts, high.parts, first, second, wanted)
    # PEFT pads nothing.
    own = extrapolated(low.parts, high.parts, lowest, highest, rank)["saved_adapter"]
    return Trace(segments, {**parts, "saved_adapter": own})


def _validation_bytes(subject: PlanSubject, train: Trace, evaluation: int) -> int:
    """One trial's validation between two steps, where all that is trained waits: its `evaluation`
    alone is all but that."""
    if not subject.training.validate_every_steps:
        return 0
    parts = train.parts
    waiting = sum(parts[name] for name in ("adapter", "best", "gradients", "optimizer"))
    if not is_packed(subject.spec.adapter):
        # Without a stack the values are validated where they are; there is a gradient for each.
        waiting -= parts["gradients"]
    return evaluation + waiting + workspace_bytes(subject.device)


def _plan(
    subject: PlanSubject, train: Trace, evaluation: int, validation: int, seconds: float
) -> MemoryPlan:
    parts, spec = train.parts, subject.spec
    objective = objective_of([subject.training])
    # What the bare base says of the rows is read before there are adapters, in such batches.
    reference = evaluation + workspace_bytes(subject.device) if objective.has_reference else 0
    # A weight's temporary copies, at most.
    cast = 0 if spec.backward is spec.compute else spec.compute.itemsize
    return MemoryPlan(
        device=subject.device,
        micro_batch_size=subject.train.samples // objective.sequences,
        tokens=subject.train.tokens,
        base_bytes=parts["base"] - parts["spared"],
        constant_bytes=parts["constants"],
        adapter_bytes=parts["adapter"],
        gradient_bytes=parts["gradients"],
        optimizer_bytes=parts["optimizer"],
        activation_bytes=parts["activations"],
        logits_bytes=max(parts[name] for name in HEAD_SEGMENTS),
        dequantization_bytes=parts["largest_quantized"] * (spec.backward.itemsize + cast),
        peak_bytes={
            "load": max(_load_peak(subject, parts), _reading_peak(subject, train), reference),
            "train": max(peak_of(train, subject), validation),
            "evaluate": evaluation + workspace_bytes(subject.device),
            "merge": _merge_peak(subject, parts),
        },
        seconds=seconds,
        shards=subject.shards,
    )


def peak_of(trace: Trace, subject: PlanSubject) -> int:
    """The highest segment."""
    return max(trace.segments.values()) + workspace_bytes(subject.device)


def workspace_bytes(device: str) -> int:
    """On CUDA cuBLAS takes its workspace from the same allocator."""
    return CUBLAS_WORKSPACE_BYTES if device == "cuda" else 0


def deciding_phase(plan: MemoryPlan) -> str:
    """The phase of PHASES with the highest peak."""
    known = [phase for phase in PHASES if phase in plan.peak_bytes]
    return max(known, key=lambda phase: plan.peak_bytes[phase])


def needed_bytes(plan: MemoryPlan) -> int:
    """Highest peak of PHASES."""
    return plan.peak_bytes[deciding_phase(plan)]


def _load_peak(subject: PlanSubject, parts: Mapping[str, int]) -> int:
    """The base with adapters and room for gradients, while PEFT makes the last adapter; or with the
    stored copy of the largest parameter that loading casts. What several GPUs divide comes layer by
    layer out of the RAM, which has all of it."""
    stored = unquantized_dtype(subject.spec.quant, stored_dtype(subject.spec.config))
    cast = 0 if stored is subject.spec.compute else parts["largest_other"] * stored.itemsize
    made = parts["adapter"] + parts["gradients"] + parts["saved_adapter"]
    if subject.shards > 1 and subject.device == "cuda":
        return parts["base"] - parts["spared"] + max(parts["gathered"], made)
    return parts["base"] + max(cast, made)


def _reading_peak(subject: PlanSubject, train: Trace) -> int:
    """At most, while a method reads samples before the first step, as many at once as a step does:
    a step without the optimizer, and what the method holds of them. 0 where none is read."""
    if not any(own.reads_samples() for own in subject.spec.pack):
        return 0
    parts = train.parts
    step = peak_of(train, subject) - parts["optimizer"] - parts["best"]
    return step + parts["saved_adapter"] + parts["reading"]


def _merge_peak(subject: PlanSubject, parts: Mapping[str, int]) -> int:
    """Peak of `lorascope merge`: of its check on the device, or, on a CPU, of writing the merged
    model.

    The check computes in float32 and has the merged model or the base, never both; loading an
    adapter has it twice for a moment. Writing has the base as it is stored, the adapter, and what
    waits for its file, all of it in float32. A matrix is there once more as it was, as the
    difference, and as the magnitudes and three masks by which PEFT sees that all is finite.
    """
    spec, quantized = subject.spec, parts["quantized_parameters"]
    others = parts["parameters"] - quantized
    packed = parts["base"] - spec.compute.itemsize * others
    whole, adapter = 4 * parts["parameters"], parts["saved_adapter"]
    rounds_inputs = QUANTIZERS[spec.quant.storage].rounds_inputs
    exact = 4 * others + (4 * quantized if rounds_inputs else packed)
    check = max(whole, exact + 2 * adapter)
    if subject.device != "cpu":
        return check
    stored = unquantized_dtype(spec.quant, stored_dtype(spec.config)).itemsize
    merging = (3 * 4 + 3) * max(parts["largest_quantized"], parts["largest_other"])
    writing = packed + stored * others + adapter + min(whole, SHARD_BYTES) + merging
    return max(check, writing)
