"""A model's Hugging Face config.json as a plain dict: no torch, no transformers, no network.

Shapes, parameter counts and memory follow from it, so that a model can be judged before it is here.
"""

from __future__ import annotations

from pathlib import Path

from lorascope.bases.folder import read_json
from lorascope.bases.known_configs import known_config, known_config_names
from lorascope.bases.source_folder import is_prepared, source_folder
from lorascope.bases.tiny.shape import tiny_config
from lorascope.config import ModelConfig, ModelKind
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout

CONFIG_FILE = "config.json"


def model_config_dict(model: ModelConfig, layout: Layout) -> dict[str, object]:
    """The config.json of `model`, from its prepared base, else the folder that it is made from,
    `known_config`, the tiny model's own settings, or the hub cache on this machine; with a head for
    classes where `model` asks for one. ConfigError where none of them has it, ModelError where a
    file is not a JSON object."""
    values = _as_it_is(model, layout)
    if model.classes is None:
        return values
    from lorascope.bases.class_base import class_config

    return class_config(values, model)


def _as_it_is(model: ModelConfig, layout: Layout) -> dict[str, object]:
    for _, place in _files(model, layout):
        return read_json(place)
    if model.known_config is not None:
        return known_config(model.known_config)
    if model.kind is ModelKind.tiny:
        return {"model_type": "llama", **tiny_config()}
    if model.kind is ModelKind.hub:
        return read_json(_hub_file(model))
    raise ConfigError(
        "model.path",
        model.path,
        f"there is no {CONFIG_FILE} in this folder",
        "Correct the path, or name a public configuration: model.known_config=...",
    )


def config_label(model: ModelConfig, layout: Layout) -> str:
    """Name of the configuration that `model_config_dict` gives."""
    for label, _ in _files(model, layout):
        return label
    return model.known_config or model.name


def own_code_folder(model: ModelConfig, layout: Layout) -> Path | None:
    """The folder of `model_config_dict`'s file where it holds code of the model's own, and that is
    trusted."""
    if not model.trust_remote_code or not model_config_dict(model, layout).get("auto_map"):
        return None
    folders = [place.parent for _, place in _files(model, layout)]
    if not folders and model.known_config is None and model.kind is ModelKind.hub:
        folders = [_hub_file(model).parent]
    return next((folder for folder in folders[:1] if any(folder.glob("*.py"))), None)


def _files(model: ModelConfig, layout: Layout) -> list[tuple[str, Path]]:
    """The config.json files of `model` that are here, the one to take first, with their labels."""
    places = []
    if is_prepared(model, layout.base(model.name)):
        places.append((model.name, layout.base(model.name) / CONFIG_FILE))
    if (model.path or model.start_from) and (source := source_folder(model, layout)) is not None:
        places.append((model.path or model.name, source / CONFIG_FILE))
    return [(label, place) for label, place in places if place.is_file()]


def _hub_file(model: ModelConfig) -> Path:
    """Its config.json in the hub cache; ConfigError where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(str(model.repository), CONFIG_FILE, revision=model.revision)
    if isinstance(cached, str):
        return Path(cached)
    raise ConfigError(
        "model.repository",
        model.repository,
        f"its {CONFIG_FILE} is not on this machine, and this command downloads nothing",
        f"Fetch that one file: `hf download {model.repository} {CONFIG_FILE} --revision "
        f"{model.revision}`; or set model.known_config to one of: "
        f"{', '.join(known_config_names())}.",
    )
