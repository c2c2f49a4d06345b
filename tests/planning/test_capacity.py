"""Predictions continued over depth, rank and batch size, against traces of the whole."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from lorascope.adapters.kinds import rank_of
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.config import Config, QuantConfig, Storage
from lorascope.meters.batches import Batch
from lorascope.planning.arithmetic import (
    Excerpts,
    excerpts,
    extrapolated,
    layer_period,
    opening_and_period,
)
from lorascope.planning.capacity import Capacity, capacity_of, largest_micro_batch, largest_rank
from lorascope.planning.depth import evaluation_bytes, segments_like, training_trace
from lorascope.planning.plan import Prediction, needed_bytes, peak_of, plan_memory, predict_ranks
from lorascope.planning.subject import PlanSubject, SampleLengths, subject_of
from lorascope.planning.trace import trace_evaluation, trace_training
from lorascope.records import MemoryPlan

EIGHT_LAYERS: dict[str, object] = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


def subject(
    quant: QuantConfig | None = None, kind: str = "cpu", samples: int = 4, tokens: int = 32
) -> PlanSubject:
    config = Config(quant=quant or QuantConfig("nf4", Storage.nf4), adapter=LoraConfig(rank=8))
    config.train.micro_batch_size = config.train.batch_size = samples
    config.train.steps = 10
    return subject_of(config, EIGHT_LAYERS, kind, SampleLengths(tokens, equal=False))


def predicted(planned: PlanSubject) -> Prediction:
    rank = rank_of(planned.spec.adapter)
    return predict_ranks(planned, [rank])[rank]


@cache
def usual_plan(kind: str) -> MemoryPlan:
    """Of the usual subject: several tests read it."""
    return plan_memory(subject(kind=kind))


@cache
def usual_capacity(kind: str) -> Capacity:
    """The same."""
    return capacity_of(subject(kind=kind), predicted(subject(kind=kind)))


def test_nothing_fits_where_evaluation_does_not() -> None:
    planned = subject(kind="cuda")
    batch = Batch(64, 32, padded=True)
    planned = replace(planned, evaluation=(batch, batch))
    prediction = predicted(planned)
    peaks = prediction.plan.peak_bytes
    assert peaks["train"] < peaks["evaluate"]
    capacity = capacity_of(planned, prediction)
    between = (peaks["train"] + peaks["evaluate"]) / 2
    assert largest_micro_batch(capacity, between) == largest_rank(capacity, between) == 0
    enough = peaks["evaluate"]
    assert largest_micro_batch(capacity, enough) >= planned.train.samples
    assert largest_rank(capacity, enough) == rank_of(planned.spec.adapter)
    assert largest_rank(capacity, enough + 10**6, check=True) > rank_of(planned.spec.adapter)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_one_shallow_evaluation_continues_to_that_of_the_whole_model(kind: str) -> None:
    planned = subject(QuantConfig("nf4_dq", Storage.nf4, True), kind)
    whole = trace_evaluation(planned, None, planned.evaluation)
    assert evaluation_bytes(planned) == pytest.approx(whole, rel=0.001)


@pytest.mark.parametrize(("samples", "checkpointing"), [(1, True), (2, False)])
def test_a_layer_of_each_kind_continues_to_the_whole_of_gemma_3(
    samples: int, checkpointing: bool
) -> None:
    """Sliding and full attention keep equal tensors where both make masks; a window that is
    shorter than one unpadded sample takes whole periods."""
    kinds = ["full_attention" if (i + 1) % 3 == 0 else "sliding_attention" for i in range(10)]
    config = {**EIGHT_LAYERS, "model_type": "gemma3_text", "num_hidden_layers": 10,
              "layer_types": kinds, "sliding_window": 16, "head_dim": 16}  # fmt: skip
    planned = subject(kind="cuda", samples=samples)
    training = replace(planned.training, gradient_checkpointing=checkpointing)
    planned = replace(planned, spec=replace(planned.spec, config=config), training=training)
    whole = trace_training(planned, kept=None)
    assert max(training_trace(planned).segments.values()) == pytest.approx(
        max(whole.segments.values()), rel=0.001
    )
    evaluated = trace_evaluation(planned, None, planned.evaluation)
    assert evaluation_bytes(planned) == pytest.approx(evaluated, rel=0.001)


@pytest.mark.parametrize(("kind", "checkpointing"), [("cpu", True), ("cuda", False)])
def test_two_shallow_traces_continue_to_the_trace_of_the_whole_model(
    kind: str, checkpointing: bool
) -> None:
    planned = subject(kind=kind)
    training = replace(planned.training, gradient_checkpointing=checkpointing)
    planned = replace(planned, training=training)
    continued = training_trace(planned)
    whole = trace_training(planned, kept=None)
    assert max(continued.segments.values()) == pytest.approx(
        max(whole.segments.values()), rel=0.001
    )
    for part, value in continued.parts.items():
        assert value == pytest.approx(whole.parts[part], rel=0.001), part


UNEVEN: dict[str, dict[str, object]] = {
    "deepseek_v3": {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": 2, "num_hidden_layers": 8,
        "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8, "v_head_dim": 16,
    },
    "qwen2_moe": {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40,
        "shared_expert_intermediate_size": 48, "num_hidden_layers": 8, "decoder_sparse_step": 2,
    },
}  # fmt: skip
"""Models whose layers differ in their tensors, as other settings than names of kinds say."""


@pytest.mark.parametrize("model_type", UNEVEN)
def test_layers_that_differ_in_their_tensors_continue_to_the_whole_model(model_type: str) -> None:
    planned = subject(QuantConfig("fp16", Storage.float16), kind="cuda")
    config = {**EIGHT_LAYERS, "model_type": model_type, **UNEVEN[model_type]}
    planned = replace(planned, spec=replace(planned.spec, config=config))
    continued, whole = training_trace(planned), trace_training(planned, kept=None)
    assert continued.layer_bytes
    assert max(continued.segments.values()) == pytest.approx(
        max(whole.segments.values()), rel=0.001
    )
    assert continued.parts["base"] == whole.parts["base"]


def test_ranks_between_two_traced_ones_lie_on_their_line() -> None:
    predicted = predict_ranks(subject(), [1, 32, 512])
    exact = plan_memory(
        replace(subject(), spec=replace(subject().spec, adapter=LoraConfig(rank=32)))
    )
    assert predicted[32].plan.adapter_bytes == exact.adapter_bytes
    for phase, peak in exact.peak_bytes.items():
        assert predicted[32].plan.peak_bytes[phase] == pytest.approx(peak, rel=0.02), phase
        assert predicted[32].plan.peak_bytes[phase] >= peak - 8, phase


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_largest_micro_batch_fits_and_one_more_sample_does_not(kind: str) -> None:
    planned, capacity = subject(kind=kind), usual_capacity(kind)
    limit = 3 * capacity.planned.plan.peak_bytes["train"]
    found = largest_micro_batch(capacity, limit)
    assert found > 4

    def peak(samples: int) -> int:
        batch = replace(planned.train, samples=samples)
        return peak_of(training_trace(replace(planned, train=batch)), planned)

    assert peak(found) <= limit < peak(found + 1)
    assert largest_micro_batch(capacity, limit, check=True) == found
    assert largest_micro_batch(capacity, 1000) == 0


@pytest.mark.parametrize(
    ("kind", "samples", "tokens", "dora", "checkpointing"),
    [
        ("cpu", 1, 4, False, False),
        ("cpu", 4, 32, False, True),
        # In 16 bits copies of DoRA's values wait for the backward pass, unless they are made again.
        ("cuda", 4, 128, True, False),
        ("cuda", 4, 128, True, True),
    ],
)
def test_more_samples_continue_to_a_trace_with_them(
    kind: str, samples: int, tokens: int, dora: bool, checkpointing: bool
) -> None:
    """With few tokens gradients outweigh activations, so that peaks lie at the other end. With few
    on CUDA the allocator's blocks would weigh more than what is in them."""
    planned = subject(kind=kind, samples=2 * samples, tokens=tokens)
    training = replace(planned.training, gradient_checkpointing=checkpointing)
    spec = replace(planned.spec, adapter=LoraConfig(rank=8, dora=dora))
    planned = replace(planned, training=training, spec=spec)
    fewer = replace(planned, train=replace(planned.train, samples=samples, padded=True))
    continued = segments_like(planned, training_trace(fewer), samples)
    exact = training_trace(planned).segments
    assert continued.keys() == exact.keys()
    for name, peak in exact.items():
        assert continued[name] == pytest.approx(peak, rel=0.002), name


def test_the_largest_rank_fits_and_the_next_does_not() -> None:
    planned, capacity = subject(), usual_capacity("cpu")
    limit = 2 * capacity.planned.plan.peak_bytes["train"]
    found = largest_rank(capacity, limit, check=True)

    def needed(rank: int) -> int:
        spec = replace(planned.spec, adapter=LoraConfig(rank=rank))
        return needed_bytes(plan_memory(replace(planned, spec=spec)))

    assert 8 < found < 512
    assert needed(found) <= limit
    # The line lies above the true, convex peak: it may stop a few ranks early.
    assert needed(round(found * 1.05) + 1) > limit
    assert largest_rank(capacity, 1e15) == 512
    assert largest_rank(capacity, 1000) == 0


def test_double_quantization_saves_what_the_format_says() -> None:
    plain = usual_plan("cpu")
    nested = plan_memory(subject(QuantConfig("nf4_dq", Storage.nf4, True)))
    weights = 8 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160)
    blocks = weights // 64
    saved = plain.constant_bytes - nested.constant_bytes
    # Four bytes a block become one, and four for 256 of those; the rest is tables and offsets.
    assert saved == pytest.approx(3 * blocks - 4 * blocks / 256, rel=0.2)
    assert plain.base_bytes - nested.base_bytes == saved
    assert plain.dequantization_bytes == 64 * 160 * (4 + 2)


def test_on_cuda_a_plan_computes_in_16_bits_and_counts_what_autocast_copies() -> None:
    on_cpu, on_cuda = usual_plan("cpu"), usual_plan("cuda")
    assert on_cuda.adapter_bytes == on_cpu.adapter_bytes
    assert on_cuda.activation_bytes < on_cpu.activation_bytes
    assert needed_bytes(on_cuda) >= on_cuda.base_bytes
    # The largest matrix in the compute type; on a CPU in float16 before, for the backward pass.
    assert on_cpu.dequantization_bytes == (2 + 4) * 64 * 160
    assert on_cuda.dequantization_bytes == 2 * 64 * 160


def test_extrapolation_is_a_line_through_both_depths() -> None:
    assert extrapolated({"a": 10, "b": 5}, {"a": 13, "b": 5, "c": 1}, 2, 3, 32) == {
        "a": 100,
        "b": 5,
    }


def test_depths_keep_whole_periods_at_both_ends() -> None:
    assert layer_period([], 32) == 1
    assert layer_period(["sliding", "full"] * 13, 26) == 2
    gemma3 = [("full" if (i + 1) % 6 == 0 else "sliding") for i in range(26)]
    assert layer_period(gemma3, 26) == 6
    assert excerpts([], 32, alike=True) == Excerpts((0, 31), (0, 31, 31), 1)
    assert excerpts(gemma3, 26, alike=False) == Excerpts(tuple(range(14)), tuple(range(20)), 6)
    assert excerpts(gemma3, 26, alike=True) == Excerpts((0, 5, 25), (0, 5, 25, 25), 1)
    assert excerpts([], 3, alike=True) is None
    dense_first = ["dense"] * 3 + ["experts"] * 58
    assert opening_and_period(dense_first) == (3, 1)
    assert opening_and_period(gemma3) == (0, 6)
    assert excerpts(dense_first, 61, alike=False) == Excerpts(tuple(range(8)), tuple(range(9)), 4)


def test_a_batch_of_one_sample_needs_no_mask() -> None:
    assert not subject(samples=1).train.padded
    assert subject(samples=2).train == Batch(2, 32, padded=True)
