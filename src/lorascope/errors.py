"""Errors that a person can act on: what was given, what is needed, what to do."""


class LorascopeError(Exception):
    """Base of every error that lorascope raises on purpose; its text is shown without a traceback."""


class ConfigError(LorascopeError):
    """A configuration value that cannot be used."""

    def __init__(self, key: str, value: object, problem: str, remedy: str) -> None:
        self.key = key
        self.value = value
        super().__init__(f"{key}={value!r}: {problem}. {remedy}")


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
