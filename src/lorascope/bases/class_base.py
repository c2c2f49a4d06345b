"""A base with a head for classes, made of a model that has none, or another: a folder like any
other base's, with every value in it, so that nothing is random when it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lorascope.adapters.class_head import DRAWN_HERE, head_names, in_head
from lorascope.bases.folder import (
    base_label,
    check_folder,
    copy_files,
    read_json,
    runs_own_code,
    write_json,
)
from lorascope.bases.heads import auto_class, with_class_head
from lorascope.bases.tiny.shape import tiny_config
from lorascope.bases.transformers_config import in_short, text_config
from lorascope.bases.weights import refuse_misfit, require_sound_values, stored_tensors
from lorascope.config import ModelConfig
from lorascope.errors import ConfigError, ModelError

HEAD_SEED = 0
"""Seed of the head that stands in the base's folder. Trials draw their own."""
OTHER_HEADS = (
    "lm_head",
    "cls",
    "mask_predictions",
    "lm_predictions",
    "generator_lm_head",
    "vocab_",
)
"""Beginnings of names of what a checkpoint may hold behind its layers for other tasks."""


def class_config(values: dict[str, Any], model: ModelConfig) -> dict[str, Any]:
    """A config.json's values for the base that `model` asks for; ConfigError where transformers
    has no head for classes for it."""
    assert model.classes is not None
    changed = dict(with_class_head(values, model.classes))
    if model.dropout is not None:
        for key, value in values.items():
            if ("dropout" in key or key.endswith("_pdrop")) and isinstance(value, float | None):
                changed[key] = model.dropout
    return changed


def empty_class_base(source: Path | None, model: ModelConfig) -> PreTrainedModel:
    """The base without values, on the meta device.

    Args:
        source: the folder of the model that it is made of; None for the tiny one.
    """
    values = (
        {"model_type": "llama", **tiny_config()}
        if source is None
        else read_json(source / "config.json")
    )
    config = text_config(class_config(values, model))
    with torch.device("meta"):
        empty: PreTrainedModel = auto_class(config).from_config(config)
    return empty


def write_class_base(source: Path, folder: Path, model: ModelConfig) -> None:
    """Write the model in `source`, with a head for `model.classes` classes, to `folder`.

    Raises:
        ConfigError: transformers has no such head, or the model runs code of its own.
        ModelError: the source lacks something, or holds values that are not finite.
    """
    check_folder(source, model)
    if runs_own_code(source):
        raise ConfigError(
            "model.classes", model.classes,
            "the model runs code of its own, for which transformers has no head for classes",
            "Leave model.classes out, or take a model that transformers knows.",
        )  # fmt: skip
    label, empty = base_label(model), empty_class_base(source, model)
    require_sound_values(source, label, empty)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(HEAD_SEED)
        try:
            # A checkpoint's own head for another number of classes is of no use here.
            base, info = type(empty).from_pretrained(
                source, config=empty.config, dtype="auto", use_safetensors=True,
                output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
        except Exception as error:
            raise ModelError(
                f"{label}: its tensors cannot be brought into the form that {type(empty).__name__} "
                f"has ({in_short(error)})."
            ) from error
    heads = head_names(base)
    mismatched = {str(found[0]) for found in info["mismatched_keys"]}
    missing = {*info["missing_keys"], *mismatched}
    drawn = sorted(missing - _embedding_from_tied_head(source, base, missing))
    refuse_misfit(
        label,
        type(base).__name__,
        [name for name in drawn if not in_head(name, heads)],
        [name for name in sorted(info["unexpected_keys"]) if not _of_another_head(name, base)],
    )
    setattr(base.config, DRAWN_HERE, [name for name in drawn if in_head(name, heads)])
    base.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    copy_files(source, folder)
    _name_pad_token(folder)


def _embedding_from_tied_head(source: Path, base: PreTrainedModel, missing: set[str]) -> set[str]:
    """Take the embedding from the head that the source ties it to, where its file holds the one
    tensor under the head's name; the embedding's name where that was so."""
    embedding: Any = base.get_input_embeddings()
    names = [n for n, value in base.named_parameters() if value is embedding.weight]
    if not missing & set(names) or not base.config.get_text_config().tie_word_embeddings:
        return set()
    for name, stored in stored_tensors(source).items():
        if name.startswith(OTHER_HEADS) and stored.shape == tuple(embedding.weight.shape):
            embedding.weight.data.copy_(stored.read(name))
            return set(names)
    return set()


def _of_another_head(name: str, base: PreTrainedModel) -> bool:
    """Whether a tensor belongs to another task's head, or to a pooler that this model lacks."""
    own = name.removeprefix(f"{base.base_model_prefix}.")
    return own.startswith((*OTHER_HEADS, "pooler", "classifier", "score"))


def _name_pad_token(folder: Path) -> None:
    """Give config.json a padding token where it names none: transformers' decoders look for the
    last token of a text by it, and read one text at a time without."""
    from lorascope.data.tokenization import load_tokenizer, pad_token_id

    path = folder / "config.json"
    config = read_json(path)
    if config.get("pad_token_id") is None:
        tokenizer = load_tokenizer(folder)
        config["pad_token_id"] = pad_token_id(tokenizer, int(config["vocab_size"]))
        write_json(path, config)
