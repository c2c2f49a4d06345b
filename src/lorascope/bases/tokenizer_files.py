"""A tokenizer's files, carried from folder to folder, and the tokens that end a text.

Saving a loaded tokenizer again may change it, so files are copied. The one exception is a
tokenizer that transformers would load with a token lost: see `keep_unknown_token`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lorascope.data.tokenization import restore_unknown_token

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
"""The class whose tokenizer is what tokenizer.json says, in every version of transformers."""

TokenIds = int | list[int] | None
"""As `eos_token_id` stands in config.json and generation_config.json."""


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy every file of a tokenizer."""
    copy_files(source, folder, TOKENIZER_PATTERNS)


def copy_files(source: Path, folder: Path, patterns: tuple[str, ...]) -> None:
    """Copy what matches one of `patterns` to the same place in `folder`."""
    for path in {path for pattern in patterns for path in source.glob(pattern) if path.is_file()}:
        target = folder / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def keep_unknown_token(folder: Path, trust_remote_code: bool = False) -> bool:
    """Mend the files of a tokenizer that transformers would load without its unknown token, so that
    whoever loads them gets the ids that are trained and scored here; whether it had to be.

    tokenizer.json becomes the tokenizer in use, and its class one that is not rebuilt.
    """
    from transformers import AutoTokenizer

    config_path = folder / "tokenizer_config.json"
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    if not restore_unknown_token(tokenizer):
        return False
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        # The former class has tokens of its own where the file names none.
        config.setdefault(key, getattr(tokenizer, key))
    config["tokenizer_class"] = PLAIN_CLASS
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    config_path.write_text(text, encoding="utf-8")
    return True


def as_token_ids(value: TokenIds) -> list[int]:
    """One, several or none, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def stop_token_ids(end_of_text_id: int, *own: TokenIds) -> list[int]:
    """The model's own stop tokens in their order; before them the tokenizer's end-of-text token,
    which trained completions end with, where it is not among them.

    The two may differ: Qwen2.5's bases stop at <|endoftext|>, their templates at <|im_end|>.
    Scoring and merging read this alike, so that a merged model stops where it was scored to.
    """
    stops = list(dict.fromkeys(token for value in own for token in as_token_ids(value)))
    return stops if end_of_text_id in stops else [end_of_text_id, *stops]
