"""The model that `lorascope init` is given: a folder, or a repository of the hub. What is said of
it comes from its config and tokenizer; no weights are read, and none fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorascope.adapters.layers import model_parts
from lorascope.bases.fetch import (
    MODEL_FILES,
    BaseDescription,
    describe,
    require_sound_base,
)
from lorascope.bases.folder import TOKENIZER_PATTERNS, base_label, check_folder
from lorascope.bases.source_folder import is_prepared, source_folder
from lorascope.bases.tiny.shape import CONTEXT_TOKENS
from lorascope.config import ModelConfig, ModelKind, QuantConfig
from lorascope.config.bounds import is_commit
from lorascope.data.tokenization import Tokenizer, load_tokenizer
from lorascope.errors import ConfigError, LorascopeError, ModelError
from lorascope.files.layout import Layout
from lorascope.quantizers.loading import require_quantizable
from lorascope.records import ModelParts
from lorascope.starting.words import file_settings, hub_id, own_name

WITHOUT_WEIGHTS = tuple(p for p in MODEL_FILES if p != "*.safetensors")


@dataclass(frozen=True)
class FoundModel:
    """A model, and the settings that name it."""

    config: ModelConfig
    folder: Path | None
    """Where its config and tokenizer lie now; None for the embedded tiny base."""
    files: Mapping[Path, str]
    """Local file -> its place in the project, of a folder outside it."""
    is_packaged: bool = False
    """Whether it is a choice that comes with lorascope, so that no file need be written."""


def find_model(word: str, settings: Mapping[str, object], root: Path) -> FoundModel:
    """The model that `model=word` names.

    Args:
        settings: fields of ModelConfig that were asked for beside it.

    Raises:
        ConfigError: it is neither a folder nor a hub's id.
        ModelError: the folder lacks something, or the hub cannot be reached.
    """
    path = root / Path(word).expanduser()
    given: dict[str, Any] = dict(settings)
    if not path.exists() and (choice := Layout(root).choices("model").get(word)):
        return _packaged(choice, given)
    if path.is_file():
        raise ConfigError(
            "model", word, "a file, where the folder of a model belongs",
            "Name the folder that holds config.json, *.safetensors and the tokenizer.",
        )  # fmt: skip
    if path.is_dir():
        return _local(path.resolve(), word, given, root.resolve())
    repository, revision = hub_id("model", word, "folder", (".safetensors", ".gguf", ".bin"))
    folder = _fetch(repository, revision)
    name = own_name("model", repository.rpartition("/")[2])
    own: dict[str, Any] = {"name": name, "repository": repository, "revision": folder.name}
    return FoundModel(ModelConfig(**{**own, "kind": ModelKind.hub, **given}), folder, {})


def _packaged(choice: Path, given: dict[str, Any]) -> FoundModel:
    config: ModelConfig = file_settings(choice, ModelConfig, given)
    is_hub = config.kind is ModelKind.hub
    folder = _fetch(str(config.repository), config.revision) if is_hub else None
    return FoundModel(config, folder, {}, is_packaged=not given)


def _local(path: Path, word: str, given: dict[str, Any], root: Path) -> FoundModel:
    name = own_name("model", path.name)
    is_inside = path.is_relative_to(root)
    place = str(path.relative_to(root)) if is_inside else f"models/raw/{name}"
    config = ModelConfig(**{"name": name, "kind": ModelKind.local, "path": place, **given})
    # In its own words: what is judged is the folder that was named.
    check_folder(path, replace(config, path=word))
    if config.classes is None:
        require_sound_base(path, replace(config, path=word), values=False)
    found = {file for pattern in MODEL_FILES for file in path.glob(pattern) if file.is_file()}
    files = {} if is_inside else {f: f"{place}/{f.relative_to(path)}" for f in sorted(found)}
    return FoundModel(config, path, files)


def _fetch(repository: str, revision: str | None) -> Path:
    """The hub's folder without weights, called by its commit."""
    from huggingface_hub import snapshot_download

    try:
        patterns = [*WITHOUT_WEIGHTS, *TOKENIZER_PATTERNS]
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:
        told = str(error).strip().splitlines()
        raise ModelError(
            f"model={repository!r}: cannot be read from the hub ({type(error).__name__}: "
            f"{told[0] if told else 'no reason given'}). Check the spelling; `hf auth login` where "
            "it is gated. Without a network name a folder that holds the model."
        ) from error
    if not is_commit(folder.name) or not (folder / "config.json").is_file():
        raise ModelError(f"model={repository!r}: the repository holds no config.json at a commit.")
    return folder


def declared_model(config: ModelConfig, layout: Layout) -> FoundModel:
    """The model of a study, from its prepared base or, before there is one, from its source."""
    base = layout.base(config.name)
    if (base / "tokenizer_config.json").is_file() and is_prepared(config, base):
        return FoundModel(config, base, {})
    if config.kind is ModelKind.tiny:
        return FoundModel(config, None, {})
    if config.kind is ModelKind.hub:
        return FoundModel(config, _fetch(str(config.repository), config.revision), {})
    folder = source_folder(config, layout)
    assert folder is not None, config.kind
    check_folder(folder, config)
    return FoundModel(config, folder, {})


@dataclass(frozen=True)
class ModelFacts:
    """What a person should know of a model before a study."""

    architecture: str
    parameters: int
    context_tokens: int
    smallest_dimension: int
    """Of all adapted layers' inputs and outputs: a larger rank adds nothing there."""
    tokenizer: Tokenizer

    @property
    def has_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))


def facts_of(found: FoundModel, root: Path) -> ModelFacts:
    """What config and tokenizer say; ModelError where transformers cannot build the model."""
    if found.folder is None:
        return _facts_of_tiny()
    tokenizer = load_tokenizer(found.folder, found.config.trust_remote_code)
    at = replace(found.config, kind=ModelKind.local, path=str(found.folder))
    if found.config.classes is not None:
        return _facts_of_classes(at, root, tokenizer)
    told: BaseDescription = describe(found.folder, base_label(found.config))
    return ModelFacts(
        told.architecture, told.parameters, told.context_tokens, _smallest(told.parts), tokenizer
    )


def _facts_of_tiny() -> ModelFacts:
    from lorascope.bases.tiny.pretraining import build_tiny_model, build_tiny_tokenizer

    model = build_tiny_model()
    parameters = sum(one.numel() for one in model.parameters())
    smallest = _smallest(model_parts(model))
    tokenizer = build_tiny_tokenizer()
    return ModelFacts(type(model).__name__, parameters, CONTEXT_TOKENS, smallest, tokenizer)


def _facts_of_classes(model: ModelConfig, root: Path, tokenizer: Tokenizer) -> ModelFacts:
    from lorascope.bases.class_base import empty_class_base
    from lorascope.bases.transformers_config import context_tokens, first_position

    empty = empty_class_base(root / str(model.path), model)
    context = context_tokens(empty.config) - first_position(empty)
    parameters = sum(one.numel() for one in empty.parameters())
    return ModelFacts(
        type(empty).__name__, parameters, context, _smallest(model_parts(empty)), tokenizer
    )


def _smallest(parts: ModelParts) -> int:
    return min((min(s.in_features, s.out_features) for s in parts.linear), default=1)


def storable(found: FoundModel, modes: Mapping[str, QuantConfig]) -> tuple[list[str], str]:
    """Those of `modes` in which the model can be stored, and why another cannot."""
    names, why = [], ""
    if found.folder is None:
        return list(modes), why
    for name, mode in modes.items():
        try:
            require_quantizable(found.folder, mode)
        except LorascopeError as error:
            why = str(error)
        else:
            names.append(name)
    return names, why
