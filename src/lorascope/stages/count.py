"""count: trainable parameters by rank and method, from the model's configuration alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.adapters.kinds import kind_of, rank_of
from lorascope.adapters.targets import select, unadapted_sentences
from lorascope.bases.config_json import config_label, model_config_dict, own_code_folder
from lorascope.bases.shapes import model_shape, refused_by_peft
from lorascope.config import AdapterConfig, Config, ModelConfig
from lorascope.config.bounds import MAX_RANK
from lorascope.counting.architectures import ModelShape, WeightMatrix, language_config
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
    models: dict[str, _Model] = {}
    tables = []
    shown: set[tuple[object, ...]] = set()
    for config in configs:
        name, adapter = config_label(config.model, layout), config.adapter
        whole = kind_of(adapter).reads_weights(adapter)
        chosen = (adapter.targets, tuple(adapter.modules), _patterns(adapter))
        kind = (name, adapter.kind, *chosen, whole)
        if kind in shown:
            continue
        shown.add(kind)
        if name not in models:
            models[name] = _model(config.model, name, layout)
        parameters = _names(flags.get("--target-parameters", ""))
        tables.append(_adapters(models[name], adapter, ranks, parameters))
    for name, model in models.items():
        methods = method_table(model.shape, _names(flags.get("--methods", ",".join(METHODS))))
        tables.append(f"{name}, other methods\n\n{methods.plain()}")
    print("\n".join(tables), end="")


@dataclass(frozen=True)
class _Model:
    name: str
    values: Mapping[str, object]
    """Those of its config.json."""
    own_code: Path | None
    shape: ModelShape


def _model(model: ModelConfig, name: str, layout: Layout) -> _Model:
    values, own_code = model_config_dict(model, layout), own_code_folder(model, layout)
    shape = model_shape(values, own_code)
    if language_config(values) is not values or shape.model_type != values.get("model_type"):
        beside = "the vision tower" if "audio_config" not in values else "what sees or hears"
        print(f"{name}: its language model alone; {beside} is left out.\n")
    return _Model(name, values, own_code, shape)


def _adapters(
    model: _Model, adapter: AdapterConfig, ranks: list[int], parameters: list[str]
) -> str:
    shape = model.shape
    bare = _target_parameters(shape, parameters, adapter)
    chosen = select(shape.parts, adapter)
    kinds = dict.fromkeys([layer.kind for layer in chosen] + parameters)
    table = adapter_table(shape, adapter, chosen, bare, ranks)
    sentences: list[str] = []
    if not bare and set(chosen) <= set(shape.linear_shapes):
        sentences += unadapted_sentences(shape.linear_shapes, list(shape.unadapted))
    if reason := refused_by_peft(model.values, adapter, model.own_code):
        remedy = f"Choose other layers: {adapter.kind}=modules {adapter.kind}.modules=[...]."
        sentences.append(f"PEFT does not put this adapter on the model ({reason}). {remedy}")
    return (
        f"{model.name}: {shape.model_type}, {shape.layers} layers, "
        f"{shape.total_parameters:,} parameters\n"
        f"{_method(adapter)} on {adapter.targets.value}{_patterns(adapter)}: "
        f"{len(chosen) + len(bare)} matrices "
        f"({', '.join(kinds)})\n"
        + "".join(f"{sentence}\n" for sentence in sentences)
        + f"\n{table.plain()}"
    )


def _patterns(adapter: AdapterConfig) -> str:
    """Layers with ranks of their own, in words; empty without any."""
    ranks: dict[str, int] = getattr(adapter, "rank_pattern", {})
    return "".join(f", {pattern} at rank {rank}" for pattern, rank in ranks.items())


def _method(adapter: AdapterConfig) -> str:
    """LoRA, or the switch that adds parameters to it: DoRA."""
    method, switch = kind_of(adapter).method, kind_of(adapter).reads_weights(adapter)
    return next((dial.noun for dial in method.dials if dial.name == switch), method.label)


def _target_parameters(
    shape: ModelShape, names: list[str], adapter: AdapterConfig
) -> list[WeightMatrix]:
    """Experts and routers whose parameter's name ends as listed."""
    # What follows the number of a layer.
    there = {re.split(r"\.\d+\.", m.name, maxsplit=1)[-1] for m in shape.expert_matrices}
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
