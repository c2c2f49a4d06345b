"""What makes two trials the same: a hash over what differs from the defaults, inputs, and revisions
of the numbers. Neither names nor the text of the code are in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lorascope.adapters.kinds import DEFAULT_KIND, KINDS, kind_name
from lorascope.config import Config, DataConfig, ModelConfig, QuantConfig, TrainConfig
from lorascope.files.revisions import (
    DIGESTS,
    MADE_BY,
    TRAINING,
    canonical_sha256,
    raised,
    revisions,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

KEPT_OUT = ("name", "checkpoint_every_steps", "log_every_steps")
"""Fields that decide what a thing is called and what is kept of it, not what is computed."""


def trial_settings(config: Config, base_sha256: str, data_sha256: str) -> dict[str, Any]:
    """Everything that decides a trial's result, in full. Where it runs is not part of it, nor are
    names: the base, the data and the mode count by content."""
    return {
        "base": base_sha256,
        "data": data_sha256,
        "attention": config.model.attention,
        "train_on_prompt": config.data.train_on_prompt,
        "quant": _deciding(config.quant),
        config.adapter.kind: _deciding(config.adapter),
        "train": _deciding(config.train),
        "seed": config.seed,
        "revisions": revisions(TRAINING, config.quant.compute, config.data.max_tokens),
    }


def _deciding(group: DataclassInstance) -> dict[str, Any]:
    """The fields of a group that decide values; lists of names in one order."""
    values = {name: value for name, value in asdict(group).items() if name not in KEPT_OUT}
    return {name: sorted(v) if isinstance(v, list) else v for name, v in values.items()}


DEFAULTS: Mapping[str, Any] = {
    "attention": ModelConfig().attention,
    "train_on_prompt": DataConfig().train_on_prompt,
    "quant": _deciding(QuantConfig()),
    **{name: _deciding(kind.config()) for name, kind in KINDS.items()},
    "train": _deciding(TrainConfig()),
}
"""What `trial_settings` gives where nothing is asked for, of each kind of adapter. A new field with
a default makes no new trial; a field whose default changes needs a new name."""
OTHER_KINDS = KINDS.keys() - {DEFAULT_KIND}
"""Kinds that a trial names even where all their settings are the defaults."""


def unlike_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a trial's settings differs from the defaults, and all that has none; of revisions,
    those that were raised, so that a new room makes no new trial either."""
    kept = {}
    for name, value in settings.items():
        default = DEFAULTS.get(name)
        if name == "revisions":
            value, default = raised(value), {}
        elif isinstance(value, Mapping) and isinstance(default, Mapping):
            value = {k: v for k, v in value.items() if k not in default or v != default[k]}
            default = {}
        if value != default or name in OTHER_KINDS:
            kept[name] = value
    return kept


def trial_identity(settings: Mapping[str, Any]) -> str:
    """The digest of what `unlike_defaults` keeps."""
    return canonical_sha256(unlike_defaults(settings))


def differing_settings(there: Mapping[str, Any], declared: Mapping[str, Any]) -> list[str]:
    """What a trial that is there was made with and a declared one is not, as 'train.steps=100, and
    200 is declared'. What is not written down is as by default; which code trained it is left
    out."""
    theirs, ours = _flat(there), _flat(declared)
    return [
        f"other {key}"
        if key in DIGESTS
        else f"{key}={json.dumps(theirs.get(key))}, and {json.dumps(ours.get(key))} is declared"
        for key in dict.fromkeys([*ours, *theirs])
        if theirs.get(key) != ours.get(key)
    ]


def in_full(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A record's settings with those that did not exist yet when it was written: what is not
    written down is as by default."""
    full = dict(settings)
    others = KINDS.keys() - {kind_name(settings)}
    for group, default in DEFAULTS.items():
        if isinstance(default, Mapping) and group not in others:
            full[group] = {**default, **settings.get(group, {})}
        elif group not in others:
            full.setdefault(group, default)
    return full


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """'train.steps' -> 100, of all settings."""
    flat: dict[str, Any] = {}
    for group, value in in_full(settings).items():
        inner = value if isinstance(value, Mapping) else {"": value}
        if group not in MADE_BY:
            flat |= {f"{group}.{name}".rstrip("."): own for name, own in inner.items()}
    return flat
