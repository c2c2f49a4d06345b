"""The declared grid: params.yaml and overrides as a product of axes of validated points."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from itertools import islice, product
from math import prod
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString, RangeSweep
from omegaconf import DictConfig, OmegaConf

from lorascope.adapters.kinds import KINDS
from lorascope.config import Config
from lorascope.config.rules import Judged, validate
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.study.composing import (
    composed,
    composing,
    config_of,
    made_anew,
    plain_errors,
    refers,
)
from lorascope.study.overrides import PARTS, groups, is_hydra, read_overrides
from lorascope.study.params import ENGINE, group_of

BESIDE_A_RECIPE = {"seed", "merge", "decide", "search", "ship", "engine"}
MOST_POINTS = 100_000
"""Of a grid: beyond it `range(1,1000000)` is a slip of the hand."""


def with_overrides(declared: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """`declared` with `overrides` in place of what they name.

    A recipe sets model, data, mode, served forms, adapter and training: of `declared` the seeds and
    the rules stay. Where kinds of adapters are chosen, the settings of others are no axes.
    """
    recipes = [text for text in overrides if text.startswith("recipe=")]
    if recipes and recipes[-1] != "recipe=null":
        declared = [text for text in declared if group_of(text) in BESIDE_A_RECIPE]
    declared = _without_other_kinds(declared, overrides)
    chosen = {override.partition("=")[0]: override for override in [*declared, *overrides]}
    return list(chosen.values())


def _without_other_kinds(declared: Sequence[str], overrides: Sequence[str]) -> list[str]:
    adapters = [text.partition("=")[2] for text in overrides if text.startswith("adapter=")]
    named = set(re.findall(r"\w+", adapters[-1])) if adapters else KINDS.keys()
    return [text for text in declared if group_of(text) not in KINDS.keys() - named]


def recipe_axes(overrides: Sequence[str], layout: Layout) -> list[str]:
    """The chosen recipe's own sweep, as overrides: `hydra.sweeper.params` of its file, where
    Hydra's sweepers look too. Put them before those of the command line, which then count."""
    axes = _of_recipe("hydra.sweeper.params", overrides, layout) or {}
    return _without_other_kinds([f"{key}={value}" for key, value in axes.items()], overrides)


def recipe_parts(overrides: Sequence[str], layout: Layout) -> list[list[str]]:
    """The grids that the chosen recipe is made of, beside what `overrides` say: `parts` of its
    file, as overrides. One part without any where it names none."""
    parts = _of_recipe(PARTS, overrides, layout) or [{}]
    return [[f"{key}={value}" for key, value in part.items()] for part in parts]


def _of_recipe(key: str, overrides: Sequence[str], layout: Layout) -> Any:
    """What the chosen recipe's file has under `key`; None where there is none of either."""
    chosen = [text.partition("=")[2] for text in overrides if text.startswith("recipe=")]
    file = layout.choices("recipe").get(chosen[-1]) if chosen else None
    if file is None:
        return None
    with plain_errors(layout):
        return OmegaConf.select(OmegaConf.load(file), key)


def expand(layout: Layout, overrides: list[str]) -> list[Config]:
    """Every point of the grid that sweep overrides span, composed and validated; where a recipe has
    parts, of each of its grids.

    Of overrides of one key the last counts, and all count before those of a recipe's part.
    params.yaml is not read: begin with `declared_overrides`, and put others in their place with
    `with_overrides`.

    Groups are composed by Hydra; a value (a rank, a seed) is then set in the composed
    configuration, with the same type checks, which is a hundred times faster.

    Raises:
        LorascopeError: an override cannot be read, a key or group is unknown, a value is unusable.
    """
    parts = recipe_parts(overrides, layout)
    if len(parts) == 1:
        return _product(layout, with_overrides([], [*parts[0], *overrides]))
    points: list[Config] = []
    for part in parts:
        own = _product(layout, with_overrides([], [*part, *overrides]))
        # Two parts may meet in one point.
        points += [point for point in own if point not in points]
    return points


def _product(layout: Layout, overrides: list[str]) -> list[Config]:
    """The points of one grid."""
    parsed = read_overrides(overrides, layout)
    _require_one_engine(parsed)
    _require_countable(parsed)
    chosen = groups(layout)
    values = [axis for axis in parsed if axis.key_or_group not in chosen and not is_hydra(axis)]
    files = [axis for axis in parsed if axis not in values]
    with composing(layout):
        # One by one: a bad value is found at the first.
        choices = (composed(point, layout) for point in product(*(_texts(axis) for axis in files)))
        points = [config for choice in choices for config in _with_values(choice, values, layout)]
    _require_trained(parsed, {config.adapter.kind for config in points})
    return points


def _require_one_engine(read: Sequence[Override]) -> None:
    """Where trials are computed is no axis: the first of several would silently do it all."""
    for override in read:
        if group_of(override.key_or_group) == ENGINE and override.is_sweep_override():
            raise LorascopeError(
                f"{override.input_line}: one engine with one set of settings does the work of a "
                "command. Name one value. To use several, start the command once for each in the "
                "same folder: they divide the packs."
            )


def _require_trained(read: Sequence[Override], kinds: set[str]) -> None:
    """Settings of a kind of adapter that no trial has would be ignored."""
    for override in read:
        kind = group_of(override.key_or_group)
        if kind in KINDS and kind not in kinds:
            trained = ",".join(sorted(kinds))
            raise LorascopeError(
                f"{override.input_line}: a setting of adapter={kind}, and adapter={trained} is "
                f"chosen. Leave it out, or write adapter={trained},{kind} to sweep over both."
            )


def _require_countable(axes: Iterable[Override]) -> None:
    swept = [axis for axis in axes if axis.is_sweep_override()]
    points = prod(_values_up_to(axis, MOST_POINTS + 1) for axis in swept)
    if points > MOST_POINTS:
        told = " ".join(str(axis.input_line) for axis in swept)
        raise LorascopeError(
            f"{told}: more than {MOST_POINTS:,} trials. Leave values out, or widen range()'s step."
        )


def _values_up_to(axis: Override, most: int) -> int:
    value = axis.value()
    # shuffle(range(...)) would be written out.
    values = value.range() if isinstance(value, RangeSweep) else axis.sweep_iterator()
    return sum(1 for _ in islice(values, most))


def _texts(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _with_values(composed: DictConfig, axes: list[Override], layout: Layout) -> list[Config]:
    """Each point of the axes' product; those of another kind of adapter than a point's are none of
    its axes."""
    keys = [axis.key_or_group for axis in axes]
    swept = {group_of(key) for key in keys} & KINDS.keys()
    points = product(*(_values(axis) for axis in axes))
    refer = refers(composed) or any("${" in str(axis.input_line) for axis in axes)
    found: dict[str, Config] = {}
    changed = copy.deepcopy(composed)
    made: Any = None
    judged: Judged = {}
    former: dict[str, str] = {}
    for number, point in enumerate(points):
        values = dict(zip(keys, point, strict=True))
        kind = str(values.get("adapter", composed.adapter))
        others = swept - {kind}
        own = {key: value for key, value in values.items() if group_of(key) not in others}
        name = str(own) if others else str(number)
        if name not in found:
            # A point that sets what the one before it set needs no copy of its own, and where no
            # value is made of others, only what differs is made anew.
            if others or any(isinstance(value, dict) for value in own.values()):
                changed, made, former = copy.deepcopy(composed), None, {}
            told = {key: repr(value) for key, value in own.items()}
            new = [key for key in own if former.get(key) != told[key]]
            for key in new:
                # A mapping takes the place of the one that is there, whatever its keys.
                OmegaConf.update(changed, key, own[key], force_add=isinstance(own[key], dict))
            made, former = made_anew(changed, None if refer else made, new), told
            found[name] = config_of(made, layout)
            validate(found[name], judged)
    return list(found.values())


def _values(axis: Override) -> list[Any]:
    """The values of an axis; of a mapping, which Hydra would add to the one in the file, itself."""
    values = axis.sweep_iterator() if axis.is_sweep_override() else [axis.value()]
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """Without Hydra's marks of what was quoted."""
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.text if isinstance(value, QuotedString) else value
