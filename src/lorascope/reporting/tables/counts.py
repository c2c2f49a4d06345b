"""Tables of `lorascope count`: adapters by rank, and the methods beside LoRA."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorascope.adapters.kinds import at_rank, kind_of, rank_of
from lorascope.config import AdapterConfig
from lorascope.counting.architectures import ModelShape, WeightMatrix
from lorascope.counting.parameters import (
    full_parameters,
    houlsby_adapter_parameters,
    ia3_parameters,
    peft_all_linear_parameters,
    prefix_embed_parameters,
    prefix_layer_parameters,
    prefix_tuning_parameters,
    prompt_tuning_parameters,
    target_parameters_lora,
)
from lorascope.errors import ConfigError
from lorascope.records import LinearShape
from lorascope.reporting import units
from lorascope.reporting.tables.parameters import count_columns
from lorascope.reporting.tables.table import Column, Table

ADAPTER_SIZES, TOKEN_COUNTS, EXPERT_RANKS = (8, 64), (20, 100), (8, 64)
"""Usual bottlenecks, virtual tokens and ranks."""


@dataclass(frozen=True)
class RankRow:
    """An adapter, at one rank where it has one."""

    rank: int | None
    trainable_parameters: int
    switched_parameters: int | None
    """The same with the method's switch that changes their number, such as DoRA; None where the row
    has it on, or it cannot be had."""


@dataclass(frozen=True)
class MethodRow:
    """Another method at one size."""

    method: str
    size: str
    trainable_parameters: int | None
    """None where the method cannot be had on this model; `size` says so."""


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
    switch = next((dial for dial in kind.method.dials if dial.counts and not dial.letter), None)
    for rank in ranks if rank_of(adapter) else [0]:
        own = at_rank(adapter, rank)
        bare = target_parameters_lora(bare_parameters, rank) if bare_parameters else 0
        plain = kind.parameters(own, layers)
        other = plain if switch is None else _with_switch(own, switch.name, layers)
        rows.append(RankRow(rank or None, plain + bare, None if bare or other == plain else other))
    return Table(
        (
            Column("rank", "Rank"),
            *count_columns("adapter_bytes", "Adapter (FP32)", lambda _: shape.total_parameters),
            Column("switched_parameters", f"With {switch.noun if switch else ''}", units.count),
        ),
        rows,
    )


def _at(
    method: str,
    unit: str,
    sizes: Sequence[int],
    count: Callable[[ModelShape, int], int | None],
    otherwise: str = "PEFT's does not fit this model",
) -> Callable[[ModelShape], list[MethodRow]]:
    """`method` at each of `sizes`; one row that says `otherwise` where there is no count."""

    def rows(shape: ModelShape) -> list[MethodRow]:
        if count(shape, 1) is None:
            return [MethodRow(method, otherwise, None)]
        return [MethodRow(method, unit.format(size), count(shape, size)) for size in sizes]

    return rows


def _full(shape: ModelShape) -> list[MethodRow]:
    return [MethodRow("Full fine-tuning", "", full_parameters(shape))]


def _bitfit(shape: ModelShape) -> list[MethodRow]:
    size = "all biases" if shape.bias_parameters else "the model has no biases"
    return [MethodRow("BitFit", size, shape.bias_parameters)]


def _ia3(shape: ModelShape) -> list[MethodRow]:
    outputs, inputs = shape.peft.ia3_targets
    counted = ia3_parameters(shape)
    if not counted:
        return [MethodRow("IA3", "no keys, values or MLP by a known name", None)]
    source = "ours: PEFT has no default" if shape.peft.ia3_is_ours else "PEFT"
    kinds = dict.fromkeys(name.rpartition(".")[2] for name in (*outputs, *inputs))
    return [MethodRow(f"IA3 ({source})", ", ".join(kinds), counted)]


def _all_linear(shape: ModelShape) -> list[MethodRow]:
    """Of models with experts, which it adapts in some and passes over in others."""
    if not shape.expert_matrices:
        return []
    reach = "with" if shape.peft.all_linear_has_experts else "without"
    method = f'LoRA, PEFT\'s "all-linear" {reach} experts'
    return _at(method, "rank {}", EXPERT_RANKS, peft_all_linear_parameters)(shape)


METHODS: dict[str, Callable[[ModelShape], list[MethodRow]]] = {
    "full": _full,
    "bitfit": _bitfit,
    "adapter": _at(
        "Adapter-H (Houlsby)", "bottleneck {}", ADAPTER_SIZES,
        lambda shape, size: (
            houlsby_adapter_parameters(shape, size) if shape.has_two_blocks else None
        ),
        "a layer is not two blocks",
    ),
    "prefix_embed": _at(
        "PrefixEmbed (LoRA paper)", "{} tokens", TOKEN_COUNTS, prefix_embed_parameters
    ),
    "prefix_layer": _at(
        "PrefixLayer (LoRA paper)", "{} tokens", TOKEN_COUNTS, prefix_layer_parameters
    ),
    "prefix": _at("Prefix tuning (PEFT)", "{} tokens", TOKEN_COUNTS, prefix_tuning_parameters),
    "prompt": _at("Prompt tuning (PEFT)", "{} tokens", TOKEN_COUNTS, prompt_tuning_parameters),
    "ia3": _ia3,
    "experts": _all_linear,
}  # fmt: skip
"""Name on the command line -> the method at usual sizes."""


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
    return Table(
        (
            Column("method", "Method", right=False),
            Column("size", "Size", right=False),
            *count_columns("weight_bytes", "Weights (FP32)", lambda _: shape.total_parameters),
        ),
        [row for name in methods for row in METHODS[name](shape)],
    )
