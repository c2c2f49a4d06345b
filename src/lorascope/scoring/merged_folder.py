"""The merged model's files: the base's own, except for the weights and the stop tokens.

The files that transformers 5 writes for a model are its own dialect: a config.json without
`rope_theta`, from which older programs take another base frequency without a word, and a
generation_config.json made from the config, without sampling settings and with one stop token. So
both files are the base's, with as few values changed as the merged model needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from lorascope.adapters.class_head import DRAWN_HERE
from lorascope.bases.folder import INDEX, SHARD_BYTES, WHOLE, copy_files, read_json, write_json
from lorascope.bases.heads import WRITER, class_of
from lorascope.bases.weights import stored_tensors
from lorascope.data.tokenization import TokenIds, as_token_ids, load_tokenizer, stop_token_ids
from lorascope.scoring.merging import Merge

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


def end_of_text_id(stored: Path) -> int | None:
    """The token with which every completion ends that was trained on a stored base; None where it
    has a head for classes."""
    if class_of(stored) is not WRITER:
        return None
    return int(load_tokenizer(stored).eos_token_id)


def write_merged(
    merged: Merge,
    base: Path,
    end_of_text_id: int | None,
    folder: Path,
    shard_bytes: int = SHARD_BYTES,
) -> MergedFiles:
    """Write the merged model to `folder`: weights under the base's tensor names, and its files.

    Args:
        base: the full-precision base, as prepared.
        end_of_text_id: the tokenizer's, with which every trained completion ends; None of a model
            with a head for classes, which stops nowhere.
    """
    write_shards(merged.layers, folder, shard_bytes)
    dtype = str(merged.dtype).removeprefix("torch.")
    changed = _fitting(read_json(base / CONFIG), dtype, merged.untied)
    stops = []
    if end_of_text_id is not None:
        stops = _write_stops(merged, base, changed, end_of_text_id, folder)
    write_json(folder / CONFIG, changed)
    copy_files(base, folder)
    for code in base.glob("*.py"):
        shutil.copyfile(code, folder / code.name)
    return MergedFiles(
        stop_token_ids=stops,
        foreign_names=_foreign_names(merged, base, folder),
    )


def _write_stops(
    merged: Merge, base: Path, changed: Values, end_of_text_id: int, folder: Path
) -> list[int]:
    """Let the config `changed` and generation_config.json name where generation stops."""
    base_stops = changed.get("eos_token_id")
    if base_stops is not None:
        changed["eos_token_id"] = _config_stops(base_stops, end_of_text_id)
    generation = _generation_settings(merged, base, folder)
    generation["eos_token_id"] = _generation_stops(generation.get("eos_token_id"), end_of_text_id)
    write_json(folder / GENERATION, generation)
    return as_token_ids(generation["eos_token_id"])


def write_shards(groups: Iterable[dict[str, Tensor]], folder: Path, shard_bytes: int) -> None:
    """Write tensors as they come, a file as soon as the next group would not fit into it: under the
    names that transformers looks for, with an index where there are several files."""
    files: list[dict[str, int]] = []
    held: dict[str, Tensor] = {}

    def flush() -> None:
        files.append({name: tensor.nbytes for name, tensor in held.items()})
        save_file(held, folder / _part(len(files)), metadata={"format": "pt"})
        held.clear()

    for group in groups:
        for name, tensor in group.items():
            if held and sum(t.nbytes for t in held.values()) + tensor.nbytes > shard_bytes:
                flush()
            held[name] = tensor.contiguous()
        group.clear()
    flush()
    _name_shards(files, folder)


def _part(number: int) -> str:
    return f"part-{number}.safetensors"


def _name_shards(files: list[dict[str, int]], folder: Path) -> None:
    """Give files their names, which say how many there are."""
    if len(files) == 1:
        (folder / _part(1)).rename(folder / WHOLE)
        return
    names = [f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)]
    for number, name in enumerate(names, start=1):
        (folder / _part(number)).rename(folder / name)
    places = {tensor: name for name, sizes in zip(names, files, strict=True) for tensor in sizes}
    total = sum(size for sizes in files for size in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    write_json(folder / INDEX, index)


def _generation_settings(merged: Merge, base: Path, folder: Path) -> Values:
    """The base's, else what transformers makes of its config.json, by which it then generates."""
    if (base / GENERATION).is_file():
        return read_json(base / GENERATION)
    settings = merged.plain.generation_config
    if settings is None:
        return {}
    settings.save_pretrained(folder)
    return read_json(folder / GENERATION)


def _fitting(config: Values, dtype: str, untied: bool) -> Values:
    """The base's config.json for the merged weights; a composite model's text part likewise."""
    changed = dict(config)
    if isinstance(config.get("text_config"), dict):
        changed["text_config"] = _fitting(config["text_config"], dtype, untied)
    changed |= {key: dtype for key in DTYPE_KEYS if key in config} or {"torch_dtype": dtype}
    if untied:
        changed["tie_word_embeddings"] = False
    if DRAWN_HERE in changed:
        # It is a trained one.
        changed[DRAWN_HERE] = []
    return changed


def _config_stops(present: TokenIds, end_of_text_id: int) -> TokenIds:
    """Stop tokens for config.json. Some programs take no list there, so a single token stays a
    single one: the trained token, as the makers of chat models have it."""
    if end_of_text_id in as_token_ids(present):
        return present
    return stop_token_ids(end_of_text_id, present) if isinstance(present, list) else end_of_text_id


def _generation_stops(present: TokenIds, end_of_text_id: int) -> TokenIds:
    """Stop tokens for generation_config.json: the base's, the trained one first if it is new."""
    stops = stop_token_ids(end_of_text_id, present)
    return stops[0] if len(stops) == 1 and not isinstance(present, list) else stops


def _foreign_names(merged: Merge, base: Path, folder: Path) -> list[str]:
    """Merged tensors that the base lacks: programs that find tensors by name would lose them."""
    known = set(stored_tensors(base))
    # The first GPT-2 files lack the prefix, and every program takes either.
    known |= {f"{merged.plain.base_model_prefix}.{name}" for name in known}
    strange = sorted(set(stored_tensors(folder)) - known)
    return [] if len(strange) <= int(merged.untied) else strange
