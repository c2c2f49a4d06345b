"""The judgement of a configuration: by the bounds of its fields, and by rules across fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from enum import Enum
from functools import reduce

from lorascope.config import (
    Config,
    DataConfig,
    DecideConfig,
    EvaluateConfig,
    ModelKind,
    Search,
    TrainConfig,
)
from lorascope.config.bounds import BOUND, Bound, is_encodable
from lorascope.config.rule import PEOPLE, Rule
from lorascope.config.setting_rules import RULES
from lorascope.config.task_rules import ONE_TASK
from lorascope.errors import ConfigError

Judged = dict[int, object]
"""Groups that were found usable, by their id, and kept, so that no other group gets it."""


def validate(config: Config, judged: Judged | None = None) -> None:
    """Raise ConfigError for the first value that no run could use. Groups that are among `judged`,
    as points of a grid share most of theirs, are not looked at again; the others join them."""
    judged = {} if judged is None else judged
    groups = {setting.name: getattr(config, setting.name) for setting in fields(config)}
    new = {name: group for name, group in groups.items() if id(group) not in judged}
    _require_characters(new, config)
    for key, value, bound in _bounds(config, judged):
        if value is not None and not bound.holds(value):
            raise ConfigError(_typed(key, config), _plain(value), bound.problem, bound.remedy)
    judged |= {id(group): group for group in new.values() if is_dataclass(group)}
    if config.serve is not None:
        # Stored and scored on one device, wherever it was trained.
        validate(
            replace(config, quant=config.serve, serve=None, search=Search.grid,
                    runtime=replace(config.runtime, shard=1, place=1)), judged
        )  # fmt: skip
    if config.forgetting is not None:
        _validate_forgetting(config, config.forgetting, judged)
    _judge(RULES, config)


def _validate_forgetting(config: Config, data: DataConfig, judged: Judged) -> None:
    """The rows that may be forgotten, which no objective reads."""
    train = TrainConfig(config.train.name, steps=1)
    validate(
        replace(config, data=data, forgetting=None, train=train, decide=DecideConfig(),
                evaluate=EvaluateConfig(), search=Search.grid), judged
    )  # fmt: skip


def _judge(rules: Sequence[Rule], config: Config) -> None:
    for rule in rules:
        if not rule.holds(config):
            value = reduce(getattr, rule.key.split("."), config)
            key, remedy = _typed(rule.key, config), _typed(rule.remedy, config)
            raise ConfigError(key, _plain(value), rule.problem, remedy)


def _plain(value: object) -> object:
    """A value as it is typed."""
    return value.value if isinstance(value, Enum) else value


def _typed(text: str, config: Config) -> str:
    """A key or remedy as it is typed: an adapter's section is called by its kind."""
    return re.sub(r"\badapter(?=[.=])", config.adapter.kind, text)


def _bounds(group: object, judged: Judged, prefix: str = "") -> Iterator[tuple[str, object, Bound]]:
    """(key, value, bound) of each field that has a bound, those of groups among `judged` apart."""
    assert is_dataclass(group)
    for setting in fields(group):
        value = getattr(group, setting.name)
        if is_dataclass(value):
            if id(value) not in judged:
                yield from _bounds(value, judged, f"{setting.name}.")
        elif BOUND in setting.metadata:
            yield prefix + setting.name, value, setting.metadata[BOUND]


def _require_characters(groups: Mapping[str, object], config: Config) -> None:
    """YAML can write half of a surrogate pair as \\ud800: no file name, record or digest can."""
    for group, own in groups.items():
        values = asdict(own) if is_dataclass(own) and not isinstance(own, type) else {"": own}
        for key, value in values.items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not is_encodable(text):
                    raise ConfigError(
                        _typed(f"{group}.{key}".rstrip("."), config), value,
                        "holds half of a surrogate pair, which is not a character",
                        "Write the character itself instead of \\ud800 and its like.",
                    )  # fmt: skip


def require_one_population(config: Config) -> None:
    """The tiny base and the biographies must be drawn from one seed: the base must not know the new
    people of the rows."""
    if config.model.kind is not ModelKind.tiny:
        return
    met = {"data.seed": config.data, "evaluate.forgetting: seed": config.forgetting}
    for key, data in met.items():
        if data and data.kind in PEOPLE and data.seed != config.model.pretrain_seed:
            raise ConfigError(
                key, data.seed, "the tiny base was pre-trained on people of "
                f"model.pretrain_seed={config.model.pretrain_seed}, so that these are others",
                f"Give both the same seed; conf/data/{data.name}.yaml may say it.",
            )  # fmt: skip


def require_rows_for_head(config: Config) -> None:
    """Raise ConfigError where rows have classes and the base has no head for them, or the other way
    round; what is trained is not known yet where rows are prepared."""
    _judge([rule for rule in ONE_TASK if rule.key in ("model.classes", "data.format")], config)


def require_one_task(config: Config) -> None:
    """Raise ConfigError where base, rows and objective are not all for classes, or all for
    completions, or where something is asked for that a model without words cannot do."""
    _judge(ONE_TASK, config)
