"""params.yaml: read as DVC reads it, and held to what dvc.yaml can put into paths and commands.

DVC follows YAML 1.2, where `010` is ten and `1e1` a number; PyYAML follows 1.1, where they are
eight and a text. What is judged here must be what `dvc repro` runs.
"""

from __future__ import annotations

import shlex
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lorascope.adapters.kinds import DEFAULT_KIND, KINDS
from lorascope.config import Search
from lorascope.config.bounds import is_name
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.study.spelling import closest

TARGETS = f"{DEFAULT_KIND}.targets"
DIALS = [f"{DEFAULT_KIND}.{d.name}" for d in KINDS[DEFAULT_KIND].method.dials if d.letter]
PARAMETER_KEYS = {
    key: DEFAULT_KIND if key == TARGETS else key
    for key in (
        "model", "data", "quant", TARGETS, *DIALS, "train", "seed", "serve", "evaluate", "merge",
        "decide", "search", "ship",
    )
}  # fmt: skip
"""Keys of params.yaml -> keys of the configuration."""
ENGINE = "engine"
OPTIONAL_KEYS = (ENGINE,)
"""Keys that params.yaml may leave to conf/config.yaml: DVC does not know them, as they change where
something is computed, and not what."""
FILE_KEYS = ("model", "data", TARGETS, "train", "evaluate", "merge", "decide")
"""Keys whose value dvc.yaml puts into a path, as the name of one file of conf/."""
READS = {
    "prepare-base": ("model",),
    "prepare-data": ("model", "data", "evaluate"),
    "quantize-base": ("model", "quant"),
    "settle": (
        "model",
        "data",
        "quant",
        "adapter",
        *KINDS,
        "train",
        "seed",
        "serve",
        "search",
        "evaluate",
        "decide",
        *OPTIONAL_KEYS,
    ),
    "train-lora": (
        "model",
        "data",
        "quant",
        "adapter",
        *KINDS,
        "train",
        "seed",
        "search",
        *OPTIONAL_KEYS,
    ),
    "evaluate": (
        "model",
        "data",
        "quant",
        "adapter",
        *KINDS,
        "train",
        "seed",
        "serve",
        "search",
        "evaluate",
        *OPTIONAL_KEYS,
    ),
}
"""Stage -> first parts of the keys that it reads, as in dvc.yaml; and of all stages:"""
ALWAYS_READ = ("recipe", "runtime")
SWEEPING = ("train-lora", "evaluate")


def declared_overrides(layout: Layout) -> list[str]:
    """params.yaml as Hydra sweep overrides, e.g. ['model=tiny', 'quant=fp16,nf4', ...].

    Raises:
        LorascopeError: it cannot be read, a key is unknown or missing, or a value is of a form
            that DVC cannot run.
    """
    params = _flat(_read(layout))
    known = [*PARAMETER_KEYS, *OPTIONAL_KEYS]
    unknown = sorted(set(params) - set(known))
    if unknown:
        near = "".join(closest(key, known) for key in unknown)
        raise LorascopeError(
            f"params.yaml: unknown key {', '.join(unknown)}.{near} It knows: {', '.join(known)}."
        )
    missing = sorted(set(PARAMETER_KEYS) - set(params))
    if missing:
        raise LorascopeError(f"params.yaml: {', '.join(missing)} is missing. Add it back.")
    return [f"{PARAMETER_KEYS.get(key, key)}={_sweep(key, value)}" for key, value in params.items()]


def _read(layout: Layout) -> dict[object, object]:
    try:
        found = YAML(typ="safe").load(layout.params.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise LorascopeError(f"params.yaml: not UTF-8 text ({error}). Save it as UTF-8.") from error
    except YAMLError as error:
        raise LorascopeError(f"params.yaml: not readable YAML{yaml_fault(error)}.") from error
    if not isinstance(found, dict):
        raise LorascopeError(
            f"params.yaml: holds {'nothing' if found is None else type(found).__name__}, where "
            "`key: value` lines belong, such as `model: tiny`. `git diff params.yaml` shows what "
            "changed."
        )
    return found


def yaml_fault(error: Exception) -> str:
    """Where a YAML file is broken and how, to follow the file's name."""
    mark: Any = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    told = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    return f"{where}: {f'{context}, ' if context else ''}{told}"


def _flat(params: dict[object, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": kept for inner, kept in value.items()})
        else:
            flat[str(key)] = value
    return flat


def _sweep(key: str, value: object) -> str:
    """The value as an override has it."""
    if key == "quant":
        names = value if isinstance(value, list) else []
        if not names:
            raise _unusable(key, value, "dvc.yaml makes a stage of each mode", "quant: [fp16, nf4]")
        return ",".join(_file_name(key, name) for name in names)
    if key in FILE_KEYS:
        return _file_name(key, value)
    if key in OPTIONAL_KEYS and not (isinstance(value, str) and is_name(value)):
        raise _unusable(
            key, value, f"a study has one {key}", f"the name of one file of conf/{key}"
        )  # fmt: skip
    if key == "search" and value not in set(Search):
        raise _unusable(key, value, "a study has one search", " or ".join(Search))
    if value is None or isinstance(value, (list, dict)):
        raise _unusable(
            key, value, "DVC puts it into a command, and takes no list and nothing empty there",
            f'{key.rpartition(".")[2]}: "1,4" for several values, quotes included',
        )  # fmt: skip
    text = ("false", "true")[value] if isinstance(value, bool) else str(value)
    if "'" in text or "\n" in text or "${" in text:
        raise _unusable(
            key, value, "DVC puts it into a command, between single quotes",
            "it without quotes, line breaks and ${...} in it",
        )  # fmt: skip
    return text


def _file_name(key: str, value: object) -> str:
    name = str(value)
    if isinstance(value, (str, int)) and not isinstance(value, bool) and is_name(name):
        return name
    raise _unusable(
        key, value, "dvc.yaml puts it into a path, so that it is the name of one file of "
        f"conf/{PARAMETER_KEYS[key]}, without its ending",
        f"one name; `lorascope train-lora -m {PARAMETER_KEYS[key]}=a,b` sweeps beside DVC",
    )  # fmt: skip


def _unusable(key: str, value: object, problem: str, remedy: str) -> LorascopeError:
    return LorascopeError(f"params.yaml: {key}={value!r}: {problem}. Write {remedy}.")


def stage_command(stage: str, overrides: list[str]) -> str:
    """The command line of `stage`, with those of `overrides` that it reads."""
    read = [text for text in overrides if group_of(text) in (*READS[stage], *ALWAYS_READ)]
    sweep = ["-m"] if stage in SWEEPING else []
    return shlex.join(["lorascope", stage, *sweep, *read])


def group_of(override: str) -> str:
    """The first part of an override's key: lora of lora.rank, lora.rank=8 and +lora.rank=8."""
    return override.partition("=")[0].lstrip("+~").partition(".")[0]
