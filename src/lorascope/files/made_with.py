"""What of conf/ a stored base, mode or dataset was made with, held against what is asked of it.

Settings that only say how it is used later, such as the type that computes or the kind of
attention, are part of a trial's identity instead.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from posixpath import normpath

from lorascope.config import DataConfig, DataKind, ModelConfig, ModelKind, TemplateKind
from lorascope.errors import RecordError
from lorascope.files.confidential import with_public_addresses

OF_THE_HUB = ("repository", "revision", "subset")
KNOWN_CONFIG = "model.known_config"
"""Kept of a base, whose own config.json `count` and `plan` take in its place."""
Settings = Mapping[str, object]


def base_settings(model: ModelConfig) -> dict[str, object]:
    """What decides a base: of settings left over from another kind, none."""
    if model.kind is ModelKind.tiny:
        own: dict[str, object] = {
            "pretrain_steps": model.pretrain_steps,
            "pretrain_seed": model.pretrain_seed,
        }
    elif model.kind is ModelKind.hub:
        own = {"repository": model.repository, "revision": model.revision}
    elif model.kind is ModelKind.trial:
        own = {"start_from": model.start_from}
    else:
        own = {"path": normpath(str(model.path))}
    if model.classes is not None:
        own |= {"classes": model.classes, "dropout": model.dropout}
    return {f"model.{key}": value for key, value in {"kind": model.kind.value, **own}.items()}


def data_settings(data: DataConfig) -> dict[str, object]:
    """What decides prepared rows and what counts as right on them."""
    values = asdict(data)
    # The share judges whether rows are prepared at all, not which; only chat templates ask for a
    # date.
    del values["name"], values["max_dropped_fraction"]
    if data.template is not TemplateKind.chat:
        del values["date"]
    if data.kind is not DataKind.hub:
        for key in OF_THE_HUB:
            del values[key]
    # As the record and conf/ have them: a message shows what stands there.
    return {f"data.{k}": v.value if isinstance(v, StrEnum) else v for k, v in values.items()}


def differing(asked: Settings, made: Settings | None) -> list[str]:
    """Keys of `asked` that `made` has otherwise. A record from before they were kept, or from
    before a key was there, says nothing."""
    public = with_public_addresses(dict(asked))
    return [key for key, value in public.items() if made and key in made and made[key] != value]


def require_made_with(asked: Settings, made: Settings | None, folder: Path, command: str) -> None:
    """Raise RecordError unless what lies in `folder` was made with the settings that are asked for.

    Args:
        command: makes it anew, but for the settings.
    """
    keys = differing(asked, made)
    if not keys or made is None:
        return
    key = keys[0]
    settings = " ".join(_override(one, asked[one]) for one in keys)
    raise RecordError(
        f"{key}={asked[key]!r}: {folder} was made with {key}={made[key]!r}, and what comes of it "
        f"would be recorded as something else. Leave the setting as it was; or copy the file of "
        f"conf/{key.partition('.')[0]} to one of another name that has it, and choose that; or "
        f"make it anew: `{command} {settings}`."
    )


def _override(key: str, value: object) -> str:
    """As a shell takes it."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[\w./-]+", value, re.ASCII)
        text = value if plain else json.dumps(value, ensure_ascii=False)
    else:
        text = json.dumps(value)
    return shlex.quote(f"{key}={text}")
