"""Tables of `lorascope count`: adapters by rank, and the methods beside LoRA."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lorascope.adapters.kinds import at_rank, kind_of, rank_of
from lorascope.config import AdapterConfig
from lorascope.counting.architectures import ModelShape, WeightMatrix
from lorascope.counting.methods import (
    houlsby_adapter_parameters,
    ia3_parameters,
    peft_all_linear_parameters,
    prefix_embedding_parameters,
    prefix_layer_parameters,
    prefix_tuning_parameters,
    prompt_tuning_parameters,
    target_parameters_lora,
)
from lorascope.counting.parameters import adamw_bytes, adapter_bytes
from lorascope.errors import ConfigError
from lorascope.records import LinearShape
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table

ADAPTER_SIZES, TOKEN_COUNTS, EXPERT_RANKS = (8, 64), (20, 100), (8, 64)
"""Usual bottlenecks, virtual tokens and ranks."""


@dataclass(frozen=True)
class RankRow:
    """An adapter, at one rank where it has one."""

    rank: int | None
    trainable_parameters: int
    percent_of_base: float
    adapter_bytes: int
    """In float32, as PEFT keeps it."""
    optimizer_bytes: int
    """AdamW's two moments in float32."""
    dora_parameters: int | None
    """The same with DoRA's magnitudes; None where the row is DoRA, or DoRA cannot be had."""


@dataclass(frozen=True)
class MethodRow:
    """Another method at one size."""

    method: str
    size: str
    trainable_parameters: int
    percent_of_base: float
    weight_bytes: int
    optimizer_bytes: int


def _with_switch(adapter: AdapterConfig, name: str, layers: Sequence[LinearShape]) -> int:
    switched = copy.copy(adapter)
    setattr(switched, name, True)
    return kind_of(adapter).parameters(switched, layers)


def adapter_table(
    shape: ModelShape,
    adapter: AdapterConfig,
    layers: Sequence[LinearShape],
    bare_parameters: Sequence[WeightMatrix],
    ranks: Sequence[int],
) -> Table[RankRow]:
    """Adapters on `layers`, a row a rank where they have one, and on experts and routers."""
    kind, rows = kind_of(adapter), []
    switches = [dial.name for dial in kind.method.dials if not dial.letter]
    for rank in ranks if rank_of(adapter) else [0]:
        own = at_rank(adapter, rank)
        bare = target_parameters_lora(bare_parameters, rank) if bare_parameters else 0
        plain = kind.parameters(own, layers)
        more = [_with_switch(own, name, layers) for name in switches]
        trainable = plain + bare
        rows.append(
            RankRow(
                rank or None,
                trainable,
                100 * trainable / shape.total_parameters,
                adapter_bytes(trainable),
                adamw_bytes(trainable),
                None if bare or max(more, default=plain) == plain else max(more),
            )
        )
    return Table(
        (
            Column("rank", "Rank"),
            Column("trainable_parameters", "Trainable", units.count),
            Column("percent_of_base", "% of base", units.small_percent),
            Column("adapter_bytes", "Adapter (FP32)", units.size),
            Column("optimizer_bytes", "AdamW state (FP32)", units.size),
            Column("dora_parameters", "With DoRA", units.count),
        ),
        rows,
    )


def _full(shape: ModelShape) -> Iterator[tuple[str, str, int]]:
    yield "Full fine-tuning", "", shape.total_parameters


def _bitfit(shape: ModelShape) -> Iterator[tuple[str, str, int]]:
    size = "all biases" if shape.bias_parameters else "the model has no biases"
    yield "BitFit", size, shape.bias_parameters


def _adapters(shape: ModelShape) -> Iterator[tuple[str, str, int]]:
    for bottleneck in ADAPTER_SIZES:
        count = houlsby_adapter_parameters(shape.layers, shape.hidden, bottleneck)
        yield "Adapter-H (Houlsby)", f"bottleneck {bottleneck}", count


def _prefix_embed(shape: ModelShape) -> Iterator[tuple[str, str, int]]:
    for tokens in TOKEN_COUNTS:
        count = prefix_embedding_parameters(shape.hidden, tokens)
        yield "PrefixEmbed (LoRA paper)", f"{tokens} tokens", count


def _prefix_layer(shape: ModelShape) -> Iterator[tuple[str, str, int]]:
    for tokens in TOKEN_COUNTS:
        count = prefix_layer_parameters(shape.layers, shape.hidden, tokens)
        yield "PrefixLayer (LoRA paper)", f"{tokens} tokens", count


def _prefix(shape: ModelShape) -> Iterator[tuple[str, str, int]]:
    for tokens in TOKEN_COUNTS:
        count = prefix_tuning_parameters(shape, tokens)
        yield "Prefix tuning (PEFT)", f"{tokens} tokens", count


def _prompt(shape: ModelShape) -> Iterator[tuple[str, str, int]]:
    for tokens in TOKEN_COUNTS:
        yield "Prompt tuning (PEFT)", f"{tokens} tokens", prompt_tuning_parameters(shape, tokens)


WITHOUT_IA3_IN_PEFT = {"phi3"}
"""Architectures for which PEFT (0.21) names no modules to scale."""


def _ia3(shape: ModelShape) -> Iterator[tuple[str, str, int]]:
    outputs, inputs = shape.ia3_targets
    kinds = [name.rpartition(".")[2] for name in (*outputs, *inputs)]
    source = "ours: PEFT has no default" if shape.model_type in WITHOUT_IA3_IN_PEFT else "PEFT"
    yield f"IA3 ({source})", ", ".join(kinds), ia3_parameters(shape)


def _experts(shape: ModelShape) -> Iterator[tuple[str, str, int]]:
    if shape.expert_matrices:
        for rank in EXPERT_RANKS:
            count = peft_all_linear_parameters(shape, rank)
            yield 'LoRA, PEFT\'s "all-linear" with experts', f"rank {rank}", count


METHODS: dict[str, Callable[[ModelShape], Iterator[tuple[str, str, int]]]] = {
    "full": _full,
    "bitfit": _bitfit,
    "adapter": _adapters,
    "prefix_embed": _prefix_embed,
    "prefix_layer": _prefix_layer,
    "prefix": _prefix,
    "prompt": _prompt,
    "ia3": _ia3,
    "experts": _experts,
}
"""Name on the command line -> (method, size, trainable parameters) at usual sizes."""


def method_table(shape: ModelShape, methods: Sequence[str] = tuple(METHODS)) -> Table[MethodRow]:
    """The methods beside LoRA, at usual sizes.

    Raises:
        ConfigError: there is no such method.
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise ConfigError(
            "--methods", ",".join(unknown), "no such method", f"There are: {', '.join(METHODS)}."
        )
    counts = [counted for name in methods for counted in METHODS[name](shape)]
    return Table(
        (
            Column("method", "Method", right=False),
            Column("size", "Size", right=False),
            Column("trainable_parameters", "Trainable", units.count),
            Column("percent_of_base", "% of base", units.small_percent),
            Column("weight_bytes", "Weights (FP32)", units.size),
            Column("optimizer_bytes", "AdamW state (FP32)", units.size),
        ),
        [
            MethodRow(
                method,
                size,
                count,
                100 * count / shape.total_parameters,
                adapter_bytes(count),
                adamw_bytes(count),
            )
            for method, size, count in counts
        ],
    )
