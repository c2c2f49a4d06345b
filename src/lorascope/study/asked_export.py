"""What a person asks of `export`, from the words of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lorascope.adapters.exportable import ADAPTER, FORMS
from lorascope.config import Precision
from lorascope.errors import ConfigError

OWN = (
    "to", "form", "precision", "converter", "base", "license", "overwrite", "push", "private",
    "dry_run",
)  # fmt: skip
"""Keys of `export`, beside `trial`."""
TYPES = tuple(one.value for one in Precision if one is not Precision.auto)


@dataclass(frozen=True)
class Asked:
    """What to write where, and whether to send it."""

    to: Path
    form: str
    precision: Precision | None
    """Of merged weights; None for the base's own 16 bits."""
    converter: str | None
    """llama.cpp's converter, or a folder with it; None looks for it on PATH."""
    base: str | None
    """The base's name on the hub, where the study has it from a folder."""
    license: str | None
    overwrite: bool
    push: str | None
    """owner/name"""
    private: bool
    dry_run: bool


def read_asked(values: Mapping[str, str]) -> Asked:
    """The command's own words.

    Raises:
        ConfigError: one cannot be used, or `to` is missing.
    """
    form = values.get("form", ADAPTER)
    if form not in FORMS:
        raise ConfigError("form", form, "no such form", f"Choose one of {', '.join(FORMS)}.")
    if not values.get("to"):
        raise ConfigError(
            "to", "", "nothing says where to", f"Name a new folder, such as to=../mine-{form}."
        )
    return Asked(
        to=Path(values["to"]).expanduser().resolve(),
        form=form,
        precision=_precision(values.get("precision"), form),
        converter=values.get("converter"),
        base=_words(values, "base", "base=owner/name"),
        license=_words(values, "license", "license=apache-2.0"),
        overwrite=_is_true(values, "overwrite", False),
        push=values.get("push"),
        private=_is_true(values, "private", True),
        dry_run=_is_true(values, "dry_run", True),
    )


def _words(values: Mapping[str, str], key: str, example: str) -> str | None:
    """What the card names, in its front matter and in a line that its readers do not see."""
    word = values.get(key)
    if word is not None and (not word.strip() or not word.isprintable() or "-->" in word):
        raise ConfigError(key, word, "a card cannot name it", f"Write one such as {example}.")
    return word


def _precision(word: str | None, form: str) -> Precision | None:
    if word is None:
        return None
    if form == ADAPTER:
        raise ConfigError(
            "precision", word, "an adapter keeps the float32 that it was trained in",
            "Leave it out, or take form=merged.",
        )  # fmt: skip
    if word not in TYPES:
        raise ConfigError("precision", word, "no such type", f"Choose one of {', '.join(TYPES)}.")
    return Precision(word)


def _is_true(values: Mapping[str, str], key: str, default: bool) -> bool:
    word = values.get(key, str(default).lower())
    if word not in ("true", "false"):
        raise ConfigError(key, word, "it is neither true nor false", f"Write {key}=true.")
    return word == "true"
