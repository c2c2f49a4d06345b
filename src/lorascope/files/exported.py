"""A folder that `export` wrote: known again by a mark in its README.md, so that nothing else is
ever replaced, and what is there already is not made twice."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from lorascope.errors import ConfigError
from lorascope.files.store import sha256_of_file

CARD = "README.md"
MARK = re.compile(r"^<!-- lorascope export: (?P<what>.+), files (?P<files>[0-9a-f]{64}) -->$", re.M)
"""A line that readers of the card do not see."""


def marked(card: str, what: str, folder: Path) -> str:
    """The text of a card with the mark for `what`, and for the files that lie in `folder`."""
    return f"{card}\n<!-- lorascope export: {what}, files {files_sha256(folder)} -->\n"


def files_of(folder: Path) -> dict[str, Path]:
    """All files in `folder`, by name; none that is hidden, or in a hidden folder: file managers,
    network drives and Git leave such anywhere."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            found["/".join(parts)] = path
    return found


def files_sha256(folder: Path) -> str:
    """Digest over names and bytes of its files but for the card, which people go on writing."""
    digest = hashlib.sha256()
    for name, path in files_of(folder).items():
        if name != CARD:
            digest.update(f"{name}\0{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def is_there(folder: Path, what: str, overwrite: bool) -> bool:
    """Whether `folder` holds this very export already, byte for byte but for its card; False where
    it may be written, as with `overwrite` any export may.

    Raises:
        ConfigError: something else is there, or an export that `overwrite` may not replace.
    """
    if not folder.exists():
        return False
    if folder.is_dir() and not any(folder.iterdir()):
        return False
    card = folder / CARD
    text = card.read_text(encoding="utf-8") if folder.is_dir() and card.is_file() else ""
    found = MARK.search(text)
    if found is None:
        raise ConfigError(
            "to", str(folder), "something is there that `export` did not write",
            "Name a folder that does not exist yet.",
        )  # fmt: skip
    if overwrite:
        return False
    if found["what"] == what and found["files"] == files_sha256(folder):
        return True
    problem = "another export is there" if found["what"] != what else "its files were changed"
    raise ConfigError(
        "to", str(folder), f"{problem} ({found['what']})",
        "Name another folder, or add overwrite=true to replace it.",
    )  # fmt: skip
