"""Errors that a person can act on: they say what was given, what is needed and what to do."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN_NAMES = 3
"""Names that an error lists; it counts the others."""


class LorascopeError(Exception):
    """Base of every error that is raised on purpose; its text is shown without a traceback."""


class ConfigError(LorascopeError):
    """A configuration value that cannot be used."""

    def __init__(self, key: str, value: object, problem: str, remedy: str) -> None:
        self.key = key
        self.value = value
        self._parts = (key, value, problem, remedy)
        super().__init__(f"{key}={value!r}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str, str]]:
        """A launcher's jobs pickle it, and pickle would rebuild it from its text."""
        return ConfigError, self._parts


class DataError(LorascopeError):
    """A dataset, row or split that cannot be used."""


class ModelError(LorascopeError):
    """A base model, tokenizer or adapter that cannot be used."""


class DeviceError(LorascopeError):
    """A device that cannot run what was asked of it."""


class RecordError(LorascopeError):
    """A record that is missing, damaged or from another version."""


class VerificationError(LorascopeError):
    """An output that was made but does not pass its own check."""


def clause(reason: object) -> str:
    """A reason from elsewhere as part of a sentence, which has a full stop of its own."""
    text = str(reason).rstrip()
    return text if text.endswith("..") else text.removesuffix(".")


def first_names(names: Sequence[str], more: str = "more") -> str:
    """The first of several names, and the number of others."""
    others = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {others} {more}" if others > 0 else "")
