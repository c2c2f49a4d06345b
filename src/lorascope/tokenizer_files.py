"""Carries a tokenizer from folder to folder: saving a loaded one again may change it."""

from __future__ import annotations

import shutil
from pathlib import Path

PATTERNS = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.jinja")


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy every file of a tokenizer."""
    for pattern in PATTERNS:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
