"""The language model that a config.json describes, built by transformers without weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    PretrainedConfig,
)

from lorascope.bases.heads import (
    MASKED,
    SEQ_TO_SEQ,
    WITH_IMAGES,
    WRITER,
    auto_class,
    gives_classes,
)
from lorascope.bases.transformers_config import text_config, unusable_config
from lorascope.errors import ConfigError

ENCODER_LAYERS = ("encoder_layers", "num_encoder_layers", "num_layers")
DECODER_LAYERS = ("decoder_layers", "num_decoder_layers")


@dataclass(frozen=True)
class EmptyModel:
    """A model that transformers can build, and what PEFT calls its task."""

    auto: Any
    """transformers' class for the task."""
    config: PretrainedConfig
    task: str = "CAUSAL_LM"
    own_code: bool = False

    @property
    def text(self) -> PretrainedConfig:
        """The configuration of the language model in it."""
        text: PretrainedConfig = self.config.get_text_config()
        return text

    def build(self) -> Any:
        """The model, on the meta device."""
        try:
            with torch.device("meta"):
                model = self.auto.from_config(self.config, trust_remote_code=self.own_code)
            # Tied parameters are one tensor, which parameters() gives once.
            model.tie_weights()
        except Exception as error:
            # Architectures fail in many ways on values that they do not expect.
            raise unusable_config(self.config.model_type, error) from error
        return model


def empty_model(values: Mapping[str, object], own_code: Path | None = None) -> EmptyModel:
    """The language model of a config.json: alone where transformers has it as a model, else inside
    the whole.

    Args:
        own_code: the folder of a model whose own code is trusted and builds it.

    Raises:
        ConfigError: transformers does not know the architecture, or has no language model of it.
        ModelError: transformers cannot use the values.
    """
    if own_code is not None:
        return EmptyModel(WRITER, _own_config(own_code, values), own_code=True)
    _require_known(values)
    config = text_config(values)
    for model in _models(config):
        return model
    raise ConfigError(
        "config.json: model_type",
        config.model_type,
        f"transformers {transformers.__version__} has no language model of this architecture",
        "Name a model that writes or completes text.",
    )


def _own_config(folder: Path, values: Mapping[str, object]) -> PretrainedConfig:
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    except Exception as error:
        raise unusable_config(values.get("model_type"), error) from error
    return config


def _require_known(values: Mapping[str, object]) -> None:
    model_type = values.get("model_type")
    if str(model_type) in CONFIG_MAPPING:
        return
    unknown = f"transformers {transformers.__version__} does not know this architecture"
    if not values.get("auto_map"):
        remedy = "Correct it, or install a release of transformers that knows it."
        raise ConfigError("config.json: model_type", model_type, unknown, remedy)
    raise ConfigError(
        "config.json: model_type",
        model_type,
        f"{unknown}, and code of the model's own (auto_map) is not run unless it is trusted",
        "Have its *.py files beside config.json: in the folder that model.path names, or by `hf "
        "download` of the whole repository. If you trust them, set model.trust_remote_code=true.",
    )


def _models(config: PretrainedConfig) -> Iterator[EmptyModel]:
    if gives_classes(config):
        yield EmptyModel(auto_class(config), config, "SEQ_CLS")
    text = config.get_text_config()
    for part in (text,) if text is config else (text, config):
        if part.is_encoder_decoder and type(part) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
            yield EmptyModel(SEQ_TO_SEQ, part, "SEQ_2_SEQ_LM")
        elif type(part) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(part, "is_decoder", False):
            # The task of PEFT's that adds no head.
            yield EmptyModel(MASKED, part, "FEATURE_EXTRACTION")
        elif type(part) in MODEL_FOR_CAUSAL_LM_MAPPING:
            yield EmptyModel(WRITER, part)
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        yield EmptyModel(WITH_IMAGES, config)


def language_part(model: Any) -> nn.Module:
    """The language model, without its head, of a model that also sees or hears; else the model."""
    whole: nn.Module = model
    if model.config.get_text_config() is model.config:
        return whole
    decoder: nn.Module = model.get_decoder()
    return decoder


def layers_of(text: PretrainedConfig) -> int:
    """Layers; of encoder and decoder together, where there are both."""
    if text.is_encoder_decoder:
        parts = [
            next((getattr(text, name) for name in names if hasattr(text, name)), 0)
            for names in (ENCODER_LAYERS, DECODER_LAYERS)
        ]
        return int(sum(parts))
    return int(text.num_hidden_layers)


def hidden_of(text: PretrainedConfig, model: Any) -> int:
    """Width of the layers."""
    width = getattr(text, "hidden_size", None)
    return int(width or model.get_input_embeddings().weight.shape[1])
