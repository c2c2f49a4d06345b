"""Whether a folder holds a usable base: judged from its files, before anything is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lorascope.config import ModelConfig, ModelKind
from lorascope.errors import ModelError

WEIGHTS = "*.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def check_folder(folder: Path, model: ModelConfig) -> None:
    """Raise ModelError unless `folder` holds config, safetensors weights and a tokenizer."""
    key = f"model.path={model.path!r}" if model.kind is ModelKind.local else model.repository
    if not folder.is_dir():
        raise ModelError(f"{key}: no such folder ({folder.name}). Correct the path.")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{key}: lacks config.json. Save the model with save_pretrained.")
    if not any(folder.glob(WEIGHTS)):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        found = "holds pickled weights only, which can run code" if pickled else "lacks weights"
        raise ModelError(
            f"{key}: {found}; *.safetensors is needed. Save it again with save_pretrained."
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"{key}: lacks a tokenizer (one of {', '.join(TOKENIZER_FILES)}). "
            "Save it there with tokenizer.save_pretrained."
        )
    if not model.trust_remote_code:
        _refuse_remote_code(folder, str(key))
    _refuse_missing_shards(folder, str(key))
    _refuse_damaged_weights(folder, str(key))


def _refuse_remote_code(folder: Path, key: str) -> None:
    if runs_own_code(folder):
        raise ModelError(
            f"{key}: its config runs code from the model's folder (auto_map). If you trust it, set "
            "model.trust_remote_code=true."
        )


def _refuse_missing_shards(folder: Path, key: str) -> None:
    for index in sorted(folder.glob(f"{WEIGHTS}.index.json")):
        named = set(_read_json(index)["weight_map"].values())
        missing = sorted(name for name in named if not (folder / name).is_file())
        if missing:
            raise ModelError(
                f"{key}: lacks {', '.join(missing)}, which {index.name} names. Copy or download "
                "the model again."
            )


def _refuse_damaged_weights(folder: Path, key: str) -> None:
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob(WEIGHTS)):
        try:
            with safe_open(path, framework="pt") as weights:
                weights.keys()
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{key}: {path.name} ({os.path.getsize(path)} bytes) cannot be read: {error}. "
                "Copy or download it again."
            ) from error


def runs_own_code(folder: Path) -> bool:
    """Whether a base brings code of its own; none comes in that was not asked for."""
    return bool(_read_json(folder / "config.json").get("auto_map"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"{path}: not readable JSON ({error}), so it is cut off or damaged. Copy or download "
            "it again."
        ) from error
    return values
