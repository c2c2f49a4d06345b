"""What stands behind a model's layers: transformers' class for the tokens that it writes, or for
the classes that it chooses among. No other file names such a class.

A base with a head for classes says so itself, in `architectures` of its config.json: whoever loads,
plans, merges or serves it asks there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)

from lorascope.bases.folder import read_json
from lorascope.errors import ConfigError

CLASS_HEAD = "ForSequenceClassification"
"""End of the names of transformers' classes with such a head."""
WRITER, SEQ_TO_SEQ = AutoModelForCausalLM, AutoModelForSeq2SeqLM
MASKED, WITH_IMAGES = AutoModelForMaskedLM, AutoModelForImageTextToText
"""transformers' classes by what a model does, of models that are only counted too."""


def gives_classes(config: PretrainedConfig) -> bool:
    """Whether a base's config.json names an architecture with a head for classes."""
    named = getattr(config, "architectures", None) or ()
    return any(str(name).endswith(CLASS_HEAD) for name in named)


def class_of(folder: Path) -> Any:
    """transformers' class that the base in a folder is loaded with; ModelError where its
    config.json cannot be read."""
    named = read_json(folder / "config.json").get("architectures") or ()
    classes = any(str(name).endswith(CLASS_HEAD) for name in named)
    return AutoModelForSequenceClassification if classes else AutoModelForCausalLM


def auto_class(config: PretrainedConfig) -> Any:
    """transformers' class that a base is built and loaded with."""
    return AutoModelForSequenceClassification if gives_classes(config) else AutoModelForCausalLM


def with_class_head(values: Mapping[str, object], classes: int) -> dict[str, object]:
    """A config.json's values for the same model with a head for so many classes.

    Raises:
        ConfigError: transformers has no such head for this architecture, or it has an encoder and
            a decoder.
    """
    from transformers import CONFIG_MAPPING

    kind = str(values.get("model_type"))
    # Not `get`: it knows only what was asked for before.
    made = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else None  # noqa: SIM401
    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if made is None or made not in known or values.get("is_encoder_decoder"):
        raise ConfigError(
            "model.classes", classes,
            f"transformers has no head for classes that lorascope could train on "
            f"model_type={kind!r}",
            "Take an encoder such as BERT, RoBERTa or DeBERTa, or a decoder such as GPT-2 or "
            "Llama; or leave model.classes out.",
        )  # fmt: skip
    found = known[made]
    architecture = (found[0] if isinstance(found, tuple) else found).__name__
    changed = dict(values) | {"architectures": [architecture], "num_labels": classes}
    for other in ("id2label", "label2id"):
        changed.pop(other, None)
    return changed
