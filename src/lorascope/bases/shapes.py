"""Shapes of any language model from its config.json: by the table of its architecture, without
torch, or else from the empty model that transformers builds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lorascope.config import AdapterConfig
from lorascope.counting.architectures import (
    ModelShape,
    has_table,
    language_config,
    table_shape,
)
from lorascope.errors import ConfigError
from lorascope.machine.libraries import import_uncollected


def model_shape(config: Mapping[str, object], own_code: Path | None = None) -> ModelShape:
    """The shapes of the model, with its language-model head, that a config.json describes; for a
    model that also sees or hears, of its language model only.

    Args:
        own_code: the folder of a model whose own code is trusted, and builds it where there is no
            table; None where transformers' own classes do.

    Raises:
        ConfigError: a setting is missing or impossible, or transformers does not know the
            architecture.
        ModelError: transformers cannot build the model.
    """
    if has_table(config):
        try:
            return table_shape(config)
        except ConfigError:
            # A language model inside another leaves out what is the default of its class.
            if language_config(config) is config:
                raise
    import_uncollected("lorascope.bases.built_shape")
    from lorascope.bases.built_shape import built_shape

    return built_shape(config, own_code)


def refused_by_peft(
    config: Mapping[str, object], adapter: AdapterConfig, own_code: Path | None = None
) -> str | None:
    """PEFT's reason for not putting this adapter on the model; None where it does, as on every
    model whose architecture has a table."""
    if has_table(config):
        return None
    from lorascope.bases.empty_model import empty_model
    from lorascope.bases.peft_rules import refusal

    return refusal(empty_model(config, own_code), adapter)
