"""Where bases come from: pre-trained here, fetched by pinned revision, or a local folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lorascope.base_folder import check_folder, runs_own_code
from lorascope.config import ModelConfig, ModelKind
from lorascope.errors import ModelError
from lorascope.library_noise import quiet_libraries
from lorascope.linear_layers import linear_shapes
from lorascope.pretraining import (
    PretrainSettings,
    build_tiny_model,
    pretrain_tiny,
)
from lorascope.records import LinearShape

MODEL_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.txt", "*.jinja", "*.py")
Progress = Callable[[int, int, float], None]


def fetch_base(
    model: ModelConfig, folder: Path, root: Path, progress: Progress | None = None
) -> dict[str, float] | None:
    """Put the base's files into `folder`; what pre-training reached, where it was done here.

    Raises:
        ModelError: the source lacks something, or cannot be reached.
    """
    quiet_libraries()
    if model.kind is ModelKind.tiny:
        settings = PretrainSettings(steps=model.pretrain_steps, seed=model.pretrain_seed)
        result = pretrain_tiny(settings, folder, progress)
        return {name: float(value) for name, value in asdict(result).items()}
    source = _download(model) if model.kind is ModelKind.hub else local_folder(model, root)
    check_folder(source, model)
    for pattern in MODEL_FILES:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    return None


def local_folder(model: ModelConfig, root: Path) -> Path:
    """The folder that a local model's path names, seen from the project."""
    return (root / str(model.path)).resolve()


def _download(model: ModelConfig) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                str(model.repository), revision=model.revision, allow_patterns=list(MODEL_FILES)
            )
        )
    except Exception as error:
        raise ModelError(
            f"model.repository={model.repository!r}: cannot be fetched "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). With a network, warm the "
            f"cache once: `hf download {model.repository} --revision {model.revision}` (after "
            "`hf auth login` where it is gated); then it works offline, with HF_HUB_OFFLINE=1."
        ) from error


@dataclass(frozen=True)
class BaseDescription:
    """What a base is, as its config says."""

    architecture: str
    parameters: int
    """Tied parameters count once."""
    vocabulary: int
    context_tokens: int
    tied_head: bool
    linear_shapes: list[LinearShape]


def describe(folder: Path) -> BaseDescription:
    """Describe a base from its config alone: no weights are read.

    Raises:
        ModelError: transformers knows no such architecture, or the tokenizer cannot be loaded.
    """
    own_code = runs_own_code(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=own_code)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=own_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=own_code)
        # Tied parameters are one tensor, which parameters() gives once.
        model.tie_weights()
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"{folder.name}: transformers cannot use this model: {str(error).splitlines()[0]}"
        ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{folder.name}: the tokenizer has no end-of-text token, so no answer could end. "
            "Set eos_token in tokenizer_config.json."
        )
    text_config = config.get_text_config()
    return BaseDescription(
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=int(text_config.vocab_size),
        context_tokens=int(text_config.max_position_embeddings),
        tied_head=bool(text_config.tie_word_embeddings),
        linear_shapes=linear_shapes(model),
    )


def expected_shapes(model: ModelConfig, root: Path) -> list[LinearShape] | None:
    """The linear layers that a base will have; None where only the hub knows."""
    if model.kind is ModelKind.local:
        check_folder(local_folder(model, root), model)
        return describe(local_folder(model, root)).linear_shapes
    if model.kind is ModelKind.tiny:
        with torch.device("meta"):
            return linear_shapes(build_tiny_model(PretrainSettings()))
    return None
