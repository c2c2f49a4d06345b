"""The folder of a base: whether it is usable, judged from its files, and copies of its tokenizer.

Saving a loaded tokenizer again may change it, so files are copied. The one exception is a
tokenizer that transformers would load with a token lost: see `keep_unknown_token`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from lorascope.config import ModelConfig, ModelKind
from lorascope.data.tokenization import restore_unknown_token
from lorascope.errors import ModelError, clause

WEIGHTS = "*.safetensors"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""Names that transformers looks for, in this order."""
SHARD_BYTES = 2 * 10**9
"""Size of a weight file, which is in memory before it is written; a larger tensor has its own."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
TOKENIZER_PATTERNS = (
    "tokenizer*",
    "tokenization*.py",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "tekken.json",
    "*.tiktoken",
    "*.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
PLAIN_CLASS = "PreTrainedTokenizerFast"
"""The class that reads tokenizer.json as it stands, in every version of transformers."""


def check_folder(folder: Path, model: ModelConfig) -> None:
    """Raise ModelError unless `folder` holds config, safetensors weights and a tokenizer."""
    for problem in chain(_lacking(folder), _unusable(folder, model.trust_remote_code)):
        raise ModelError(f"{base_label(model)}: {problem}")
    _require_readable_weights(folder, base_label(model))


def _lacking(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        yield f"no such folder ({folder.name}). Correct the path."
    if not (folder / "config.json").is_file():
        yield "lacks config.json. Save the model with save_pretrained."
    if not any(folder.glob(WEIGHTS)):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        found = "holds pickled weights only, which can run code" if pickled else "lacks weights"
        yield f"{found}; *.safetensors is needed. Save it again with save_pretrained."
    if not weight_files(folder):
        yield (
            f"lacks weights under the name that transformers looks for, {WHOLE} or {INDEX}. Save "
            "it again with save_pretrained."
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        yield (
            f"lacks a tokenizer (one of {', '.join(TOKENIZER_FILES)}). Save it there with "
            "tokenizer.save_pretrained."
        )
    for index in sorted(folder.glob(f"{WEIGHTS}.index.json")):
        named = set(read_json(index)["weight_map"].values())
        if missing := sorted(name for name in named if not (folder / name).is_file()):
            yield (
                f"lacks {', '.join(missing)}, which {index.name} names. Copy or download the "
                "model again."
            )


def _unusable(folder: Path, trusted: bool) -> Iterator[str]:
    if runs_own_code(folder) and not trusted:
        yield (
            "its config runs code from the model's folder (auto_map). If you trust it, set "
            "model.trust_remote_code=true."
        )
    config = read_json(folder / "config.json")
    for name in ("quantization_config", "compression_config"):
        if settings := config.get(name):
            method = settings.get("quant_method") if isinstance(settings, dict) else None
            yield (
                f"its weights are quantized already ({name} in config.json"
                f"{f', {method}' if method else ''}), and modes are made from full precision. Use "
                "the 16-bit model that it was made from."
            )
    if (folder / "adapter_config.json").is_file():
        yield (
            "holds an adapter (adapter_config.json), which transformers would load with the model "
            "or instead of it. Use the folder of the base alone, or merge the adapter."
        )


def _require_readable_weights(folder: Path, label: str) -> None:
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob(WEIGHTS)):
        try:
            with safe_open(path, framework="pt") as weights:
                weights.keys()
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{label}: {path.name} ({path.stat().st_size} bytes) cannot be read: "
                f"{clause(error)}. Copy or download it again."
            ) from error


def base_label(model: ModelConfig) -> str:
    """Name of a base in errors: the key that names it, or its repository."""
    if model.kind is ModelKind.local:
        return f"model.path={model.path!r}"
    if model.kind is ModelKind.trial:
        return f"model.start_from={model.start_from!r}"
    return model.repository or f"model={model.name}"


def weight_files(folder: Path) -> list[Path]:
    """The weight files that transformers would load, whatever else lies beside them."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    index = folder / INDEX
    named = set(read_json(index)["weight_map"].values()) if index.is_file() else set()
    return [folder / name for name in sorted(named)]


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def runs_own_code(folder: Path) -> bool:
    """Whether a base brings code of its own, which is fetched only where it was asked for."""
    return bool(read_json(folder / "config.json").get("auto_map"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a base's folder; ModelError where the file holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: not readable JSON ({error}), so it is cut off or damaged. Copy or download "
            "it again."
        ) from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: not a JSON object. Copy or download it again.")
    return values


def copy_files(source: Path, folder: Path, patterns: tuple[str, ...] = TOKENIZER_PATTERNS) -> None:
    """Copy the files that match one of `patterns`, a tokenizer's, to the same place in `folder`."""
    for path in {path for pattern in patterns for path in source.glob(pattern) if path.is_file()}:
        target = folder / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def keep_unknown_token(folder: Path, trust_remote_code: bool = False) -> bool:
    """Mend the files of a tokenizer that transformers would load without its unknown token, so that
    whoever loads them gets the ids that are trained and scored here. Returns whether it had to be
    mended.

    tokenizer.json becomes the tokenizer in use, and its class one that is not rebuilt.
    """
    from transformers import AutoTokenizer

    config_path = folder / "tokenizer_config.json"
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    if not restore_unknown_token(tokenizer):
        return False
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    config = read_json(config_path) if config_path.is_file() else {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        # The former class has tokens of its own where the file names none.
        config.setdefault(key, getattr(tokenizer, key))
    config["tokenizer_class"] = PLAIN_CLASS
    write_json(config_path, config)
    return True
