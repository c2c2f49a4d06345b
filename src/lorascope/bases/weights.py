"""Whether a base's tensors are those that its config.json describes: names, shapes and values.

transformers fills what is missing with random values and only logs it, so that every later number
would be one of another model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from lorascope.bases.folder import weight_files
from lorascope.bases.transformers_config import in_short
from lorascope.errors import ModelError, first_names
from lorascope.machine.libraries import quiet_libraries

REMEDY = (
    "Take config.json and weights from one and the same save_pretrained, or download them again."
)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the header of its safetensors file describes it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it, such as BF16."""

    @property
    def is_floating(self) -> bool:
        return self.dtype.startswith(("F", "BF"))

    def read(self, name: str) -> Tensor:
        """Its values, for which the file is opened."""
        with safe_open(self.file, framework="pt") as weights:
            value: Tensor = weights.get_tensor(name)
        return value


def require_fitting_weights(
    folder: Path, label: str, model: PreTrainedModel, config: PretrainedConfig
) -> None:
    """Compare the files' headers with the model, through transformers' own conversion of names and
    shapes; no value is read.

    Args:
        label: name of the base in errors.
        model: the model that `config`, the whole of config.json, describes, on the meta device.

    Raises:
        ModelError: tensors are missing, unexpected, of another shape or no floating-point numbers.
    """
    quiet_libraries()
    stored = stored_tensors(folder)
    packed = [name for name, tensor in stored.items() if not tensor.is_floating]
    try:
        info = _loading_info(type(model), config, stored)
    except Exception as error:
        raise ModelError(
            f"{label}: its tensors cannot be brought into the form that {type(model).__name__} "
            f"has ({in_short(error)}), so some are missing or of another shape. {REMEDY}"
        ) from error
    # The text model of a model that also sees passes over the rest.
    reads_a_part = type(model.config) is not type(config)
    unexpected = [] if reads_a_part else sorted(info["unexpected_keys"])
    refuse_misfit(label, type(model).__name__, sorted(info["missing_keys"]), unexpected)
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        name, found, needed = mismatched[0]
        raise ModelError(
            f"{label}: {len(mismatched)} tensors have another shape than config.json says, first "
            f"{name}: {list(found)} in the file, {list(needed)} in {type(model).__name__}. {REMEDY}"
        )
    if packed:
        raise ModelError(
            f"{label}: {first_names(packed)} hold whole numbers, as quantized weights do. Save the "
            "base with floating-point weights."
        )


def refuse_misfit(
    label: str, architecture: str, missing: Sequence[str], unexpected: Sequence[str]
) -> None:
    """Raise ModelError where a model lacks tensors or was given some that it has no place for."""
    if not missing and not unexpected:
        return
    found = []
    if missing:
        found.append(f"{len(missing)} tensors are missing ({first_names(missing)})")
    if unexpected:
        found.append(f"{len(unexpected)} have no place in it ({first_names(unexpected)})")
    raise ModelError(
        f"{label}: the weights are not those of config.json's {architecture}: "
        f"{' and '.join(found)}. They would be filled with random values, or left out. Likely the "
        f"files are incomplete, or saved under a prefix or for another architecture. {REMEDY}"
    )


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Tensors by name, from the headers of all files that transformers would load."""
    tensors = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (no dict)
                part = weights.get_slice(name)
                dtype = str(part.get_dtype())
                tensors[name] = StoredTensor(path, tuple(part.get_shape()), dtype)
    return tensors


def dtype_of_matrices(folder: Path) -> torch.dtype:
    """The type in which a base's matrices are exact: their own where all have the same 16 bits.
    Read in it they stay in their files until they are used."""
    found = {tensor.dtype for tensor in stored_tensors(folder).values() if len(tensor.shape) > 1}
    narrow = {"F16": torch.float16, "BF16": torch.bfloat16}
    return narrow.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def _loading_info(
    model_class: Any, config: PretrainedConfig, stored: Mapping[str, StoredTensor]
) -> dict[str, Any]:
    """Report of transformers on loading tensors of these names and shapes, on the meta device."""
    empty = {name: torch.empty(tensor.shape, device="meta") for name, tensor in stored.items()}
    _, info = model_class.from_pretrained(
        None,
        config=config,
        state_dict=empty,
        device_map={"": "meta"},
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    return dict(info)


def require_sound_values(folder: Path, label: str, model: PreTrainedModel) -> None:
    """Read the tensors one by one: ModelError where values are infinite or not numbers, or a tied
    pair is stored with two values."""
    # Old files hold what the model does not load, such as attention masks.
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    ignored = "|".join(f"({pattern})" for pattern in patterns) or r"(?!)"
    for name, tensor in _values(folder):
        if re.search(ignored, name) or not tensor.is_floating_point():
            continue
        # 8-bit floats know no isfinite.
        wrong = int((~torch.isfinite(tensor.float() if tensor.itemsize == 1 else tensor)).sum())
        if wrong:
            raise ModelError(
                f"{label}: {name} holds {wrong:,} of {tensor.numel():,} values that are infinite "
                "or not numbers (NaN), so that nothing could be computed with it. Likely the model "
                "diverged, or was converted to a type that is too narrow. Save it again in bf16 or "
                "fp32 from a sound copy."
            )
    _require_equal_ties(stored_tensors(folder), label, model)


def _values(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors, file by file."""
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (no dict)
                yield name, weights.get_tensor(name)


def _require_equal_ties(
    stored: Mapping[str, StoredTensor], label: str, model: PreTrainedModel
) -> None:
    """Refuse a tied pair that is stored with two values: transformers would untie it."""
    for target, source in getattr(model, "all_tied_weights_keys", {}).items():
        both = [stored[name] for name in (target, source) if name in stored]
        if len(both) == 2 and not torch.equal(both[0].read(target), both[1].read(source)):
            raise ModelError(
                f"{label}: config.json ties {target} to {source}, but the file holds both with "
                "different values. Set tie_word_embeddings to false in config.json, or leave "
                f"{target} out of the file."
            )
