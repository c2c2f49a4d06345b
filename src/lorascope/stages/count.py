"""count: trainable parameters by rank and method, from the model's configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorascope.adapters.kinds import kind_of, rank_of
from lorascope.adapters.targets import select
from lorascope.bases.config_json import config_label, model_config_dict
from lorascope.config import AdapterConfig, Config
from lorascope.config.bounds import MAX_RANK
from lorascope.counting.architectures import ModelShape, WeightMatrix, language_config, model_shape
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.reporting.tables.counts import METHODS, adapter_table, method_table
from lorascope.reporting.tables.parameters import RANKS


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Print the tables of each model and kind of adapter that `configs` name.

    Raises:
        ConfigError: a flag's value, the model's configuration or its targets cannot be used.
    """
    ranks = _ranks(flags.get("--ranks", "")) or sorted(
        {*RANKS, *(rank_of(config.adapter) for config in configs if rank_of(config.adapter))}
    )
    shapes: dict[str, ModelShape] = {}
    tables = []
    shown: set[tuple[object, ...]] = set()
    for config in configs:
        name, adapter = config_label(config.model, layout), config.adapter
        whole = kind_of(adapter).reads_weights(adapter)
        kind = (name, adapter.kind, adapter.targets, tuple(adapter.modules), whole)
        if kind in shown:
            continue
        shown.add(kind)
        if name not in shapes:
            values = model_config_dict(config.model, layout)
            if language_config(values) is not values:
                print(f"{name}: its language model alone; the vision tower is left out.\n")
            shapes[name] = model_shape(values)
        parameters = _names(flags.get("--target-parameters", ""))
        tables.append(_adapters(name, shapes[name], adapter, ranks, parameters))
    for name, shape in shapes.items():
        methods = method_table(shape, _names(flags.get("--methods", ",".join(METHODS))))
        tables.append(f"{name}, other methods\n\n{methods.plain()}")
    print("\n".join(tables), end="")


def _adapters(
    name: str, shape: ModelShape, adapter: AdapterConfig, ranks: list[int], parameters: list[str]
) -> str:
    bare = _target_parameters(shape, parameters, adapter)
    chosen = select(shape.parts, adapter)
    kinds = dict.fromkeys([layer.kind for layer in chosen] + parameters)
    table = adapter_table(shape, adapter, chosen, bare, ranks)
    return (
        f"{name}: {shape.model_type}, {shape.layers} layers, "
        f"{shape.total_parameters:,} parameters\n"
        f"{_method(adapter)} on {adapter.targets.value}: {len(chosen) + len(bare)} matrices "
        f"({', '.join(kinds)})\n\n"
        f"{table.plain()}"
    )


def _method(adapter: AdapterConfig) -> str:
    """LoRA, or the switch that adds parameters to it: DoRA."""
    method, switch = kind_of(adapter).method, kind_of(adapter).reads_weights(adapter)
    return next((dial.noun for dial in method.dials if dial.name == switch), method.label)


def _target_parameters(
    shape: ModelShape, names: list[str], adapter: AdapterConfig
) -> list[WeightMatrix]:
    """Experts and routers whose parameter's name ends as listed."""
    there = {m.name.split(".", 3)[-1] for m in shape.expert_matrices}
    unknown = sorted(n for n in names if not any(f".{t}".endswith(f".{n}") for t in there))
    if unknown:
        raise ConfigError(
            "--target-parameters",
            ",".join(unknown),
            "no parameter of experts or a router has such a name",
            f"This model has: {', '.join(sorted(there)) or 'none'}.",
        )
    switch = kind_of(adapter).reads_weights(adapter)
    if names and (switch or not rank_of(adapter)):
        remedy = f"Set {adapter.kind}.{switch}=false." if switch else "Leave adapter= out."
        raise ConfigError(
            "--target-parameters", ",".join(names), f"PEFT has no {_method(adapter)} for them",
            remedy,
        )  # fmt: skip
    ends = tuple(f".{name}" for name in names)
    return [m for m in shape.expert_matrices if m.name.endswith(ends)] if ends else []


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _ranks(text: str) -> list[int]:
    """Ranks of --ranks, ascending; none where it is not given."""
    words = _names(text)
    wrong = [word for word in words if not word.isdecimal() or not 1 <= int(word) <= MAX_RANK]
    if wrong:
        raise ConfigError(
            "--ranks", text, f"{wrong[0]} is no rank from 1 to {MAX_RANK}", "Write --ranks 1,8,64."
        )
    return sorted({int(word) for word in words})
