"""How much memory there is for a trial, and whether it can fit: by a generous formula first, by a
trace only where that leaves doubt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from lorascope.adapters.kinds import highest_rank_of
from lorascope.adapters.layers import linear_shapes
from lorascope.bases.transformers_config import text_config
from lorascope.counting.parameters import padded_rank
from lorascope.machine.devices import Device
from lorascope.machine.memory import MemoryLimit, available_ram_bytes
from lorascope.planning.arithmetic import (
    CUDA_CONTEXT_BYTES,
    GIGABYTE,
    UNUSABLE_SHARE,
    usable_bytes,
)
from lorascope.planning.fake_model import causal_model
from lorascope.planning.plan import deciding_phase, needed_bytes, plan_memory
from lorascope.planning.subject import PlanSubject
from lorascope.records import MemoryPlan


def stated_limit(limit_gb: float) -> MemoryLimit:
    """runtime.memory_limit_gb, wherever the trial runs."""
    return MemoryLimit(int(limit_gb * GIGABYTE), f"runtime.memory_limit_gb={limit_gb:g}")


def limit_of_one(limit: MemoryLimit, shards: int, device: str) -> MemoryLimit:
    """What one of the processes that divide a base may use: they share RAM, and each GPU is one's
    own."""
    if shards == 1 or device != "cpu":
        return limit
    source = f"{limit.source}, divided by runtime.shard={shards}"
    return replace(limit, bytes=limit.bytes // shards, source=source)


def memory_limit(device: Device, limit_gb: float | None) -> MemoryLimit:
    """runtime.memory_limit_gb exactly where it is set, else what tensors can have of the GPU's
    memory that is free, or of the RAM."""
    if limit_gb is not None:
        return stated_limit(limit_gb)
    if device.kind == "cuda":
        # Of a placed base the plan tells the fullest device's need.
        places = device.places or (None,)
        free_bytes = min(torch.cuda.mem_get_info(place)[0] for place in places)
        left = f"{CUDA_CONTEXT_BYTES / GIGABYTE:g} GB and {UNUSABLE_SHARE:.0%}"
        source = f"free on {device.name}: {free_bytes / GIGABYTE:.3g} GB, less {left} in reserve"
        return MemoryLimit(usable_bytes(free_bytes, device.kind), source)
    return MemoryLimit(available_ram_bytes(), "the RAM that is free here")


@dataclass(frozen=True)
class Refusal:
    """Why a trial is not started."""

    reason: str
    plan: MemoryPlan


def refusal(subject: PlanSubject, limit: MemoryLimit) -> Refusal | None:
    """None where the trial fits; ModelError where the model cannot be traced."""
    if generous_need(subject) <= limit.bytes:
        return None
    plan = plan_memory(subject)
    needed = needed_bytes(plan)
    if needed <= limit.bytes:
        return None
    return Refusal(
        f"needs {needed / GIGABYTE:.3g} GB to {deciding_phase(plan)}, and there are "
        f"{limit.bytes / GIGABYTE:.3g} GB ({limit.source}); `lorascope plan` says "
        "which batch, rank and mode would fit",
        plan,
    )


@contextmanager
def failed_prediction_passed_over(subject: str) -> Iterator[None]:
    """A prediction decides nothing about what can run, or did: whatever fails in it is told and
    passed over.

    Args:
        subject: whose memory is predicted, for people.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        print(f"the memory of {subject} is not predicted: {reason}", flush=True)


def generous_need(subject: PlanSubject) -> int:
    """More bytes than the trial or pack can need, from shapes alone: every linear layer is adapted,
    everything in float32, and several copies of it."""
    spec = subject.spec
    config = text_config(spec.config)
    with torch.device("meta"):
        model = causal_model(config, spec)
    matrices, text = linear_shapes(model), config.get_text_config()
    step = replace(subject.train, samples=len(spec.pack) * subject.train.samples)
    batches = (step, *subject.evaluation)
    tokens = max(batch.samples * batch.tokens for batch in batches)
    heads = int(text.num_hidden_layers * text.num_attention_heads)
    scores = heads * max(batch.samples * batch.tokens**2 for batch in batches)
    rank = sum(padded_rank(highest_rank_of(own.saved())) for own in spec.pack)
    parameters: int = sum(parameter.numel() for parameter in model.parameters())
    largest = max((m.in_features * m.out_features for m in matrices), default=0)
    adapters = rank * sum(m.in_features + m.out_features for m in matrices)
    weights = 4 * parameters + 4 * 6 * adapters + 4 * 4 * largest
    if subject.training.qat is not None:
        # A merged weight on its way to codes and back, and packed weights beside rounded ones.
        weights += 4 * 12 * largest + parameters
    features = sum(8 * (m.in_features + m.out_features) + 4 * rank for m in matrices)
    return weights + 4 * (tokens * (features + 8 * int(text.vocab_size)) + 4 * scores)
