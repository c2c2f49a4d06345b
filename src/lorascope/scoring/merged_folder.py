"""The merged model's files: the base's own, except for the weights and the stop tokens.

The files that transformers 5 writes for a model are its own dialect: a config.json without
`rope_theta`, from which older programs take another base frequency without a word, and a
generation_config.json made from the config, without sampling settings and with one stop token. So
both files are the base's, with as few values changed as the merged model needs.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lorascope.bases.folder import copy_tokenizer, read_json
from lorascope.bases.weights import stored_tensors
from lorascope.data.tokenization import TokenIds, as_token_ids, stop_token_ids

Values = dict[str, Any]
CONFIG, GENERATION = "config.json", "generation_config.json"
DTYPE_KEYS = ("dtype", "torch_dtype")


@dataclass(frozen=True)
class MergedFiles:
    """Facts about the files of a merged model."""

    stop_token_ids: list[int]
    """Tokens at which generation stops, in generation_config.json."""
    foreign_names: list[str]
    """Tensor names that the base's files do not have, an untied head's excluded."""


def write_merged(
    merged: PreTrainedModel, untied: bool, base: Path, end_of_text_id: int, folder: Path
) -> MergedFiles:
    """Write the merged model to `folder`: weights under the base's tensor names, and its files.

    Args:
        untied: whether the head has a weight of its own that the base shares with its embedding.
        base: the full-precision base, as prepared.
        end_of_text_id: the tokenizer's, with which every trained completion ends.
    """
    merged.save_pretrained(folder)
    changed = _fitting(read_json(base / CONFIG), str(merged.dtype).removeprefix("torch."), untied)
    base_stops = changed.get("eos_token_id")
    if base_stops is not None:
        changed["eos_token_id"] = _config_stops(base_stops, end_of_text_id)
    _write(folder / CONFIG, changed)
    # A base without the file generates by its config.json, and so does what transformers wrote.
    base_has_it = (base / GENERATION).is_file()
    generation = read_json((base if base_has_it else folder) / GENERATION)
    generation["eos_token_id"] = _generation_stops(generation.get("eos_token_id"), end_of_text_id)
    _write(folder / GENERATION, generation)
    copy_tokenizer(base, folder)
    for code in base.glob("*.py"):
        shutil.copyfile(code, folder / code.name)
    return MergedFiles(
        stop_token_ids=as_token_ids(generation["eos_token_id"]),
        foreign_names=_foreign_names(merged.base_model_prefix, untied, base, folder),
    )


def _fitting(config: Values, dtype: str, untied: bool) -> Values:
    """The base's config.json for the merged weights; a composite model's text part likewise."""
    changed = dict(config)
    if isinstance(config.get("text_config"), dict):
        changed["text_config"] = _fitting(config["text_config"], dtype, untied)
    changed |= {key: dtype for key in DTYPE_KEYS if key in config} or {"torch_dtype": dtype}
    if untied:
        changed["tie_word_embeddings"] = False
    return changed


def _config_stops(present: TokenIds, end_of_text_id: int) -> TokenIds:
    """Stop tokens for config.json. Some programs take no list there, so a single token stays a
    single one: the trained token, as the makers of chat models have it."""
    if end_of_text_id in as_token_ids(present):
        return present
    return stop_token_ids(end_of_text_id, present) if isinstance(present, list) else end_of_text_id


def _generation_stops(present: TokenIds, end_of_text_id: int) -> TokenIds:
    """Stop tokens for generation_config.json: the base's, and before them the trained one where it
    is not among them."""
    stops = stop_token_ids(end_of_text_id, present)
    return stops[0] if len(stops) == 1 and not isinstance(present, list) else stops


def _foreign_names(prefix: str, untied: bool, base: Path, folder: Path) -> list[str]:
    """Names of merged tensors that the base does not have: programs that find tensors by name would
    lose them."""
    known = set(stored_tensors(base))
    # The first GPT-2 files lack the prefix, and every program takes either.
    known |= {f"{prefix}.{name}" for name in known}
    strange = sorted(set(stored_tensors(folder)) - known)
    return [] if len(strange) <= int(untied) else strange


def _write(path: Path, values: Values) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
