"""The declared grid: params.yaml and overrides as a product of axes of validated points."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lorascope.config import Config
from lorascope.config_rules import validate
from lorascope.errors import LorascopeError
from lorascope.layout import Layout

PARAMETER_KEYS = {
    "model": "model",
    "data": "data",
    "quant": "quant",
    "lora.targets": "lora",
    "lora.rank": "lora.rank",
    "lora.alpha": "lora.alpha",
    "train": "train",
    "seed": "seed",
    "evaluate": "evaluate",
    "merge": "merge",
    "decide": "decide",
    "ship": "ship",
}
"""Keys of params.yaml -> keys of the configuration."""


BESIDE_A_RECIPE = {"seed", "merge", "decide", "ship"}


def register_schema() -> None:
    """Tell Hydra the schema that conf/config.yaml names in its defaults."""
    ConfigStore.instance().store(name="schema", node=Config)


def declared_overrides(layout: Layout) -> list[str]:
    """params.yaml as Hydra sweep overrides, e.g. ['model=tiny', 'quant=fp16,nf4', ...].

    Raises:
        LorascopeError: a key is unknown or missing.
    """
    params = _flat(yaml.safe_load(layout.params.read_text(encoding="utf-8")) or {})
    unknown = sorted(set(params) - set(PARAMETER_KEYS))
    if unknown:
        raise LorascopeError(
            f"params.yaml: unknown key {', '.join(unknown)}. It knows: {', '.join(PARAMETER_KEYS)}."
        )
    missing = sorted(set(PARAMETER_KEYS) - set(params))
    if missing:
        raise LorascopeError(f"params.yaml: {', '.join(missing)} is missing. Add it back.")
    return [f"{PARAMETER_KEYS[key]}={_sweep(value)}" for key, value in params.items()]


def _flat(params: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": kept for inner, kept in value.items()})
        else:
            flat[key] = value
    return flat


def _sweep(value: object) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, list) else str(value)


def with_overrides(declared: list[str], overrides: list[str]) -> list[str]:
    """`declared` with `overrides` in place of what they name.

    A recipe sets model, data, mode, adapter and training: of `declared` the seeds and the rules
    stay.
    """
    if any(override.startswith("recipe=") for override in overrides):
        declared = [text for text in declared if text.partition("=")[0] in BESIDE_A_RECIPE]
    chosen = {override.partition("=")[0]: override for override in [*declared, *overrides]}
    return list(chosen.values())


def expand(layout: Layout, overrides: list[str]) -> list[Config]:
    """Every point of the grid that sweep overrides span, composed and validated.

    Groups are composed by Hydra; a swept value (a rank, a seed) is then set in the composed
    configuration, with the same type checks, which is a hundred times faster.

    Raises:
        LorascopeError: an override cannot be read, a key or group is unknown, a value is unusable.
    """
    parsed = [_parse(text) for text in overrides]
    values = [axis for axis in parsed if axis.is_sweep_override() and _is_value(axis, layout)]
    groups = [axis for axis in parsed if axis not in values]
    with _composing(layout):
        composed = [
            compose(config_name="config", overrides=list(point))
            for point in product(*(_texts(axis) for axis in groups))
        ]
        points = [_with_values(one, values) for one in composed]
    return [config for point in points for config in point]


def compose_jobs(layout: Layout, jobs: Sequence[Sequence[str]]) -> list[Config]:
    """The configuration of each job of a multirun, given by its overrides.

    Raises:
        LorascopeError: as `expand`.
    """
    composed: dict[tuple[str, ...], DictConfig] = {}
    configs = []
    with _composing(layout):
        for job in jobs:
            parsed = [_parse(text) for text in job]
            values = [one for one in parsed if _is_value(one, layout)]
            groups = tuple(str(one.input_line) for one in parsed if one not in values)
            if groups not in composed:
                composed[groups] = compose(config_name="config", overrides=list(groups))
            configs.append(
                _with_value(composed[groups], {v.key_or_group: v.value() for v in values})
            )
    return configs


@contextmanager
def _composing(layout: Layout) -> Iterator[None]:
    """Hydra's errors become ours."""
    register_schema()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(layout.conf), version_base="1.3"):
            yield
    except (HydraException, OmegaConfBaseException) as error:
        raise LorascopeError(_readable(error)) from error


def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise LorascopeError(
            f"{text}: not a Hydra override: {str(error).splitlines()[0]}. "
            "Write key=value, or key=value,value with -m."
        ) from error


def _is_value(override: Override, layout: Layout) -> bool:
    """Whether an override sets a value, rather than choosing a group's file."""
    plain = override.type is OverrideType.CHANGE and override.package is None
    return plain and not (layout.conf / override.key_or_group).is_dir()


def _texts(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _with_values(composed: DictConfig, axes: list[Override]) -> list[Config]:
    keys = [axis.key_or_group for axis in axes]
    points = product(*(list(axis.sweep_iterator()) for axis in axes))
    return [_with_value(composed, dict(zip(keys, point, strict=True))) for point in points]


def _with_value(composed: DictConfig, values: dict[str, Any]) -> Config:
    point = copy.deepcopy(composed)
    for key, value in values.items():
        OmegaConf.update(point, key, value)
    config = OmegaConf.to_object(point)
    assert isinstance(config, Config)
    validate(config)
    return config


def _readable(error: Exception) -> str:
    """Hydra's message; where it wraps another one, that one says more."""
    cause = error.__cause__
    message = str(error).strip()
    if isinstance(error, ConfigCompositionException) and cause is not None:
        message = f"{message}: {str(cause).strip()}"
    return f"configuration: {message}"
