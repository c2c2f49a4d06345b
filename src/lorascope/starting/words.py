"""The words of `lorascope init`: what a model or dataset is called that a person names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lorascope.config.bounds import FOLDERS_OF_STAGES, is_commit, is_name
from lorascope.errors import ConfigError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def hub_id(key: str, word: str, what: str, endings: Sequence[str]) -> tuple[str, str | None]:
    """The repository that `word` names, and the commit behind an @; ConfigError where it names a
    file or folder that is not there."""
    repository, at, commit = word.partition("@")
    is_file = any(repository.lower().endswith(ending) for ending in endings)
    if is_file or not HUB_ID.fullmatch(repository) or repository.startswith("."):
        raise ConfigError(
            key, word, f"there is no such {what}",
            f"Check the spelling; a path begins at the folder that you are in.{_beside(word)} A "
            f"{'dataset' if key == 'data' else key} on the hub is owner/name.",
        )  # fmt: skip
    if at and not is_commit(commit):
        raise ConfigError(
            key, word, "what stands behind @ is no commit hash of 40 hex digits",
            "Copy it from the repository's page on the hub, or leave it out for the newest.",
        )  # fmt: skip
    return repository, commit or None


def _beside(word: str) -> str:
    """A sentence that names what lies there under a similar name."""
    path = Path(word).expanduser()
    try:
        there = [each.name for each in path.parent.iterdir()]
    except OSError:
        return ""
    near = get_close_matches(path.name, there, n=1, cutoff=0.6)
    return f" Did you mean {Path(word).parent / near[0]}?" if near else ""


def own_name(group: str, stem: str) -> str:
    """A name for the file of conf/, made of what the source is called."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")
    # Hydra takes a bare number for one.
    if re.fullmatch(r"[\d._+-]*(e[\d+-]*)?", name) or name.lower() in FOLDERS_OF_STAGES:
        name = f"{group}_{name}".rstrip("_")
    return name if is_name(name) else group


def file_settings(file: Path, schema: type, given: Mapping[str, Any]) -> Any:
    """The settings of a file of conf/, with those that were `given` in their place."""
    return OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(file), dict(given))
    )


def settings_of(group: str, schema: type, words: Sequence[str]) -> dict[str, Any]:
    """Fields of a group's schema that were asked for, such as data.format=text; ConfigError where
    one is unknown or has a value that it does not take."""
    found: dict[str, Any] = {}
    for word in words:
        if not word.startswith(f"{group}."):
            continue
        key, _, value = word.removeprefix(f"{group}.").partition("=")
        known = {field.name for field in fields(schema)}
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.6)
            listed = ", ".join(sorted(known))
            remedy = f"Did you mean {group}.{near[0]}?" if near else f"It has {listed}."
            raise ConfigError(
                f"{group}.{key}", value, f"a file of conf/{group} has no such key", remedy
            )
        try:
            asked = OmegaConf.from_dotlist([f"{key}={value}"])
            merged: Any = OmegaConf.merge(OmegaConf.structured(schema), asked)
            found[key] = merged[key]
        except OmegaConfBaseException as error:
            told = str(error).splitlines()[0]
            raise ConfigError(
                f"{group}.{key}", value, told, f"`lorascope init {group}.{key}=VALUE` takes what a "
                f"file of conf/{group} takes.",
            ) from error  # fmt: skip
    return found
