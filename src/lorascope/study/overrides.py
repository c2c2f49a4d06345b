"""What a command line says, key by key: held against schema and conf/ before Hydra composes.

Hydra answers a misspelt key with the advice to append it, takes `recipe=typo` for no recipe, merges
the files of `quant=[fp16,nf4]` into one, and follows `quant=../quant/nf4` out of the group.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType, QuotedString
from hydra.errors import HydraException

from lorascope.adapters.kinds import DEFAULT_KIND, KINDS
from lorascope.config import APART, Config
from lorascope.config.bounds import FOLDERS_OF_STAGES, is_name
from lorascope.errors import LorascopeError, clause
from lorascope.files.layout import Layout
from lorascope.study.habits import called_here
from lorascope.study.spelling import closest

KindName = StrEnum("KindName", {name: name for name in KINDS})  # type: ignore[misc]


PARTS = "parts"
"""What a recipe's file calls the grids that it is made of, each a mapping of axes."""


def _sections() -> list[tuple[str, Any, Any]]:
    """Name, type and default of what stands at the top of a composed configuration."""
    kinds = {name: kind.config for name, kind in KINDS.items()}
    hints: dict[str, Any] = {**get_type_hints(Config), **kinds, "adapter": KindName, "serve": str}
    del hints["forgetting"]
    values = {own.name: own.default for own in fields(Config) if own.default is not MISSING}
    values |= {"adapter": KindName(DEFAULT_KIND), "serve": APART}
    return [
        *(
            (name, type_, values.get(name, field(default_factory=type_)))
            for name, type_ in hints.items()
        ),
        (PARTS, list[dict[str, Any]], field(default_factory=list)),
    ]


SERVE = "serve"
Composed = make_dataclass("Composed", _sections())
"""What conf/ composes: `Config` with a section for each kind of adapter, and the name of the kind
that is trained in place of its settings, and of the served form; and a recipe's parts. What
`evaluate.forgetting` names is read beside it."""


def read_overrides(texts: Sequence[str], layout: Layout) -> list[Override]:
    """`texts` as Hydra reads them, globs written out.

    Raises:
        LorascopeError: one cannot be read, names no key or file that there is, or is a list where
            one value belongs.
    """
    return [_read(text, layout) for text in texts]


def refuse_sweep(
    command: str, read: Sequence[Override], can_sweep: bool, given: Sequence[str]
) -> None:
    """Raise where one of `read` has several values and `command` runs one configuration.

    Args:
        given: the overrides of the command line; the others are those of params.yaml.
    """
    several = (override for override in read if override.is_sweep_override())
    # What was typed is told first.
    for override in sorted(several, key=lambda override: override.input_line not in given):
        text = str(override.input_line)
        if text in given:
            remedy = "Add -m to sweep" if can_sweep else "Run it once for each"
            remedy += (
                "; a text that holds a comma goes into quotes, twice: "
                f"'{override.key_or_group}=\"a,b\"'"
            )
        else:
            text = f"{text} in params.yaml"
            remedy = f"Name one of them{', or add -m to sweep' if can_sweep else ''}"
        raise LorascopeError(
            f"{text}: several values, and {command} runs one configuration. {remedy}."
        )


def is_hydra(override: Override) -> bool:
    """Whether it concerns how jobs are launched, which Hydra judges itself."""
    return override.key_or_group.startswith(("hydra.", "hydra/"))


def groups(layout: Layout) -> list[str]:
    """The folders of conf/."""
    places = (place for folder in layout.conf_folders for place in folder.iterdir())
    return sorted({place.name for place in places if place.is_dir()})


def choices(group: str, layout: Layout) -> list[str]:
    """What can be chosen of a group."""
    return sorted(name for name in layout.choices(group) if is_name(name))


@cache
def known_keys() -> Mapping[str, Any]:
    """Every key of the schema with its type: read off once, as each override is held against it."""
    return _keys(Composed, "")


def _keys(schema: Any, before: str) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    hints = get_type_hints(schema)
    for own in fields(schema):
        key, kind = f"{before}{own.name}", hints[own.name]
        keys |= _keys(kind, f"{key}.") if is_dataclass(kind) else {key: kind}
    return keys


def meant(key: str, known: Sequence[str]) -> str:
    """As `closest`, of a key; what other programs call so comes first."""
    here = called_here(key)
    return f" Did you mean {here}?" if here else closest(key, known)


def _read(text: str, layout: Layout) -> Override:
    override = _parsed(text)
    if is_hydra(override):
        return override
    key = override.key_or_group
    _require_plain(override, text, layout)
    if key in groups(layout):
        return _chosen(override, text, layout)
    group, _, last = key.rpartition(".")
    if last == "name":
        raise LorascopeError(
            f"{text}: the name is that of the file. Copy conf/{group}/<file>.yaml to a file of "
            f"the new name, set `name` in it, and choose {group}=<new name>."
        )
    if isinstance(override.value(), Glob):
        raise LorascopeError(
            f"{text}: glob() chooses among the files of a group, and {key} is a value. "
            f"Write its values: {key}=a,b."
        )
    if key == PARTS:
        raise LorascopeError(
            f"{text}: parts of a study stand in the file of a recipe. Copy one of conf/recipe, "
            "change its `parts`, and choose it with recipe=<name>."
        )
    if key == SERVE:
        _require_forms(override, text, layout)
    if override.is_interval_sweep():
        raise LorascopeError(
            f"{text}: an interval has no end of values. Write {key}=a,b or {key}=range(a,b)."
        )
    return override


@cache
def _parsed(text: str) -> Override:
    """A command line is read several times, and each takes milliseconds."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise LorascopeError(
            f"{text}: not a readable override: {clause(str(error).splitlines()[0])}. "
            f"{_corrected(text)}"
        ) from error


def _corrected(text: str) -> str:
    """The same with its value in quotes, where that can be read."""
    key, equals, value = text.partition("=")
    if equals and known_keys().get(key) in (str, str | None):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        corrected = f'{key}="{quoted}"'
        try:
            OverridesParser.create().parse_override(corrected)
        except HydraException:
            pass
        else:
            return f"Put the value into quotes, twice, for the shell too: {shlex.quote(corrected)}"
    return "Write key=value, or key=value,value with -m."


def _require_plain(override: Override, text: str, layout: Layout) -> None:
    """No appending, forcing, deleting or moving: every key is there already, with a value."""
    key, known = override.key_or_group, [*known_keys(), *groups(layout)]
    if key not in known:
        raise LorascopeError(
            f"{text}: there is no key {key!r}, and none can be added or removed."
            f"{meant(key, known)} `lorascope train-lora --help` shows all keys."
        )
    if override.type is not OverrideType.CHANGE or override.package is not None:
        raise LorascopeError(
            f"{text}: every key is there already, so that it is set and neither added, removed nor "
            f"moved. Write {key}=value."
        )


def _chosen(override: Override, text: str, layout: Layout) -> Override:
    group, there = override.key_or_group, choices(override.key_or_group, layout)
    value = override.value()
    if isinstance(value, Glob):
        names: list[object] = list(value.filter(there))
        if not names:
            raise LorascopeError(
                f"{text}: matches no file of conf/{group}. It has: {', '.join(there)}."
            )
        return _parsed(f"{group}={','.join(str(name) for name in names)}")
    several = override.is_sweep_override() and not override.is_interval_sweep()
    for name in override.sweep_iterator() if several else [value]:
        _require_choice(group, name, text, there)
    return override


def _require_choice(group: str, name: object, text: str, there: list[str]) -> None:
    word = name.text if isinstance(name, QuotedString) else name
    if word is None and group == "recipe":
        # No file of it need be chosen.
        return
    if not isinstance(word, str) or not is_name(word):
        raise LorascopeError(
            f"{text}: {_no_name(group, word)} Write {group}=, then one of "
            f"{', '.join(there)}; several with commas, without brackets."
        )
    if word not in there:
        raise LorascopeError(
            f"{text}: there is no conf/{group}/{word}.yaml."
            f"{closest(word.removesuffix('.yaml'), there)} conf/{group} "
            f"has: {', '.join(there) or 'no file'}."
        )


def _require_forms(override: Override, text: str, layout: Layout) -> None:
    """A served form is apart, or a mode of conf/quant."""
    there = [APART, *choices("quant", layout)]
    several = override.is_sweep_override() and not override.is_interval_sweep()
    for name in override.sweep_iterator() if several else [override.value()]:
        word = name.text if isinstance(name, QuotedString) else name
        if word not in there:
            raise LorascopeError(
                f"{text}: there is no form {word!r} to serve a trial in."
                f"{closest(str(word), there)} It is one of {', '.join(there)}; several with "
                "commas, without brackets."
            )


def _no_name(group: str, word: object) -> str:
    if isinstance(word, bool):
        return f"{str(word).lower()} is no name of a file."
    if isinstance(word, (int, float)):
        return f"{word!r} is a number to Hydra, so begin the name of a file with a letter."
    if str(word).lower() in FOLDERS_OF_STAGES:
        return f"stages make a folder called {word} themselves, so call the file otherwise."
    return f"{word!r} is not the name of a file of conf/{group}."
