"""Hydra composes conf/; what it finds wrong is said in words that name key, file and remedy."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache, lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lorascope.config import APART, Config, DataConfig, QuantConfig
from lorascope.config.bounds import NAMED_GROUPS, is_name
from lorascope.errors import ConfigError, LorascopeError
from lorascope.files.layout import VOCABULARY, Layout
from lorascope.study.overrides import Composed, choices, known_keys, meant
from lorascope.study.params import yaml_fault

SCHEMAS = {"data": DataConfig, "quant": QuantConfig}
NO_DEFAULT = "No match in the defaults list"
TAKES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class PackagedChoices(SearchPathPlugin):
    """Where Hydra looks for what the project's own conf/ does not hold."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("lorascope", f"file://{VOCABULARY}")


@cache
def register_schema() -> None:
    """Tell Hydra the schema that conf/config.yaml names in its defaults, and the choices that come
    with lorascope: once, as reading the schema off its dataclasses takes a fifth of what composing
    takes. Hydra copies it each time."""
    ConfigStore.instance().store(name="schema", node=Composed)
    Plugins.instance().register(PackagedChoices)


@contextmanager
def composing(layout: Layout) -> Iterator[None]:
    """Within it, `composed` finds conf/; what Hydra raises becomes ours."""
    register_schema()
    GlobalHydra.instance().clear()
    try:
        with (
            plain_errors(layout),
            initialize_config_dir(config_dir=str(layout.conf), version_base="1.3"),
        ):
            yield
    except (ValueError, OSError, RecursionError) as error:
        # Of a file that is YAML, and yet nothing that Hydra can compose.
        told = str(error).splitlines()[0]
        raise LorascopeError(
            f"{_unreadable(layout)}: {told}. A file of conf/ holds `key: value` lines; one that "
            "worked is a good start."
        ) from error


def composed(overrides: Sequence[str], layout: Layout) -> DictConfig:
    """The configuration of one choice of files, whose names are those of their files; for reading,
    as equal choices of files that did not change meanwhile are composed once."""
    paths = (path for path in layout.conf.rglob("*.yaml") if path.is_file())
    files = frozenset((path.relative_to(layout.conf), *_state(path)) for path in paths)
    return _composed(tuple(overrides), files)


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=64)
def _composed(overrides: tuple[str, ...], files: frozenset[object]) -> DictConfig:
    found = compose("config", list(overrides), return_hydra_config=True)
    chosen = dict(found.hydra.runtime.choices)
    with open_dict(found):
        del found["hydra"]
    for group in NAMED_GROUPS:
        _require_file_name(found, group, chosen.get(group))
    return found


def _require_file_name(found: DictConfig, group: str, file: str | None) -> None:
    """DVC knows the file, stages the name: two of either would share folders, or miss them."""
    name = found[group].name
    if name != file:
        raise _other_name(group, name, file)


def _other_name(group: str, name: str, file: str | None) -> ConfigError:
    other = f", or call the file {name}.yaml and choose {group}={name}" if is_name(name) else ""
    return ConfigError(
        f"{group}.name", name, f"must be {file!r}, as conf/{group}/{file}.yaml is called: folders "
        "and dvc.yaml go by it", f"Set `name: {file}` there{other}.",
    )  # fmt: skip


@contextmanager
def plain_errors(layout: Layout) -> Iterator[None]:
    """Errors of Hydra, OmegaConf and YAML become ours; all others are left as they are."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        raise LorascopeError(f"{_file_of(error, layout)}{yaml_fault(error)}. Repair it.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = str(error).splitlines()[0]
        raise LorascopeError(f"{_unreadable(layout)}: {told}. Save it as UTF-8 text.") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise LorascopeError(_readable(error)) from error


def _file_of(error: yaml.MarkedYAMLError, layout: Layout) -> str:
    mark = error.problem_mark or error.context_mark
    path = Path(mark.name) if mark else layout.conf
    inside = path.is_relative_to(layout.root)
    return str(path.relative_to(layout.root)) if inside else _unreadable(layout)


def _unreadable(layout: Layout) -> str:
    """The file of conf/ that is no mapping, where the error itself does not say which."""
    for path in sorted(layout.conf.rglob("*.yaml")):
        try:
            usable = isinstance(OmegaConf.load(path), DictConfig)
        except (yaml.YAMLError, ValueError, OSError, RecursionError):
            usable = False
        if not usable:
            return str(path.relative_to(layout.root))
    return "conf/"


def _readable(error: Exception) -> str:
    """File, key and cause in a line, and what the key takes. Hydra's own advice, to append a key
    that it does not know, would not help."""
    text = f"{error}\n{error.__cause__ or ''}".partition("Config search path:")[0]
    if NO_DEFAULT in text:
        return f"conf/config.yaml: {text.splitlines()[0]}{_missing_default(text)}"
    place = re.match(r"In '([^']+)': ", text)
    where = f"conf/{place[1]}.yaml: " if place and place[1] != "config" else "conf/: "
    lines = [" ".join(line.split()) for line in text[place.end() if place else 0 :].splitlines()]
    told = [one for one in lines if one and not one.endswith("while composing config:")]
    key = re.search(r"full_key: (\S+)", text)
    if key is None:
        return f"{where}{' '.join(told)}"
    cause = told[1 if told[0].startswith("Error merging override") else 0].rstrip(".")
    cause = "is empty" if cause.endswith("is not Optional") else cause
    return f"{where if place else ''}{key[1]}: {cause}.{_remedy(key[1], cause)}"


def _missing_default(text: str) -> str:
    """What helps where conf/config.yaml chooses no file of a group: an older study lacks those that
    came later."""
    group = re.search(r"Could not override '(\w+)'", text)
    defaults = OmegaConf.load(VOCABULARY / "config.yaml").defaults
    for default in defaults:
        if group and OmegaConf.is_dict(default) and group[1] in default:
            line = f"- {group[1]}: {default[group[1]]}"
            return f" Add the line `{line}` to its defaults, above `- _self_`."
    return " `git diff conf` shows what changed."


def _remedy(key: str, cause: str) -> str:
    known, group = known_keys(), key.partition(".")[0]
    if "issing mandatory value" in cause:
        return f" Set it in the file of conf/{group} that is chosen."
    if cause.startswith("Key '"):
        own = [name for name in known if name.partition(".")[0] == group]
        there = own or dict.fromkeys(name.partition(".")[0] for name in known)
        return f"{meant(key, list(known))} There are: {', '.join(there)}."
    listed = key.partition("[")[0]
    return f" It takes {_takes(known[listed])}." if listed in known else ""


def _takes(kind: Any) -> str:
    if isinstance(kind, UnionType):
        given = " or ".join(_takes(one) for one in get_args(kind) if one is not NoneType)
        return f"{given}, or null"
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return f"one of {', '.join(kind.__members__)}"
    return TAKES.get(kind, "a list such as [a,b]")


def object_of(found: DictConfig, layout: Layout) -> Config:
    """The configuration, with the settings of the kind of adapter that is trained, and of the mode
    that it is served in.

    Raises:
        MissingMandatoryValue: a file sets no `name`.
        ConfigError: the file of the served mode, or of what may be forgotten, is not there or has
            another name.
    """
    return config_of(OmegaConf.to_object(found), layout)


def refers(found: DictConfig) -> bool:
    """Whether some value of a configuration is made of another one, or of the environment."""
    return "${" in str(OmegaConf.to_container(found, resolve=False))


def made_anew(found: DictConfig, former: Any, keys: Iterable[str]) -> Any:
    """What `OmegaConf.to_object` makes of `found`; tens of times as fast where `former` was made of
    a configuration that differs in `keys` alone, and no value refers to another."""
    if former is None:
        return OmegaConf.to_object(found)
    made = copy.copy(former)
    for name in {key.partition(".")[0] for key in keys}:
        value = found[name]
        setattr(made, name, OmegaConf.to_object(value) if OmegaConf.is_config(value) else value)
    return made


def config_of(made: Any, layout: Layout) -> Config:
    """As `object_of`, of what OmegaConf made."""
    served: QuantConfig | None = None
    if made.serve != APART:
        served = _of_file("quant", made.serve, layout)
    forgetting: DataConfig | None = None
    if (name := made.evaluate.forgetting) is not None:
        _require_file("evaluate.forgetting", name, "data", layout)
        forgetting = _of_file("data", name, layout)
    values: dict[str, Any] = {own.name: getattr(made, own.name, None) for own in fields(Config)}
    values |= {"adapter": getattr(made, made.adapter), "serve": served, "forgetting": forgetting}
    return Config(**values)


def _require_file(key: str, name: str, group: str, layout: Layout) -> None:
    there = choices(group, layout)
    if name not in there:
        raise ConfigError(
            key, name, f"there is no such file in conf/{group}", f"There are: {', '.join(there)}."
        )


def _of_file(group: str, name: str, layout: Layout) -> Any:
    """The settings of a file of conf/, beside what Hydra composed.

    Raises:
        ConfigError: the file has another name.
    """
    text = layout.choices(group)[name].read_text(encoding="utf-8")
    found: Any = OmegaConf.to_object(_merged(group, text))
    if found.name != name:
        raise _other_name(group, found.name, name)
    return found


@cache
def _merged(group: str, text: str) -> Any:
    """A sweep over forms reads a file at each of its points."""
    return OmegaConf.merge(OmegaConf.structured(SCHEMAS[group]), OmegaConf.create(text))
