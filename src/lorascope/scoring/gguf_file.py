"""A merged model as one GGUF file: llama.cpp's own converter writes it, and what it wrote is read
back and held against the merged model, bit for bit.

GGUF is described at github.com/ggml-org/ggml/blob/master/docs/gguf.md. llama.cpp orders the rows of
some matrices otherwise (a Llama's queries and keys), and adds 1 to a Gemma's norms: transformers'
own reader of GGUF undoes that.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig

from lorascope.bases.folder import WEIGHTS, runs_own_code
from lorascope.bases.heads import class_of
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError, VerificationError
from lorascope.machine.libraries import quiet_libraries
from lorascope.records import GgufCheck

END = "tokenizer.ggml.eos_token_id"
CONVERTER = "convert_hf_to_gguf.py"
"""llama.cpp's converter of a folder of transformers' files."""
OUTTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
"""A type of torch's -> the converter's word for it."""
TOLD_LINES = 3
"""Of a converter that failed: its last lines say why."""


def find_converter(given: str | None) -> Path:
    """llama.cpp's converter: the file that is `given`, the one in a folder that is given, or what
    PATH has of that name.

    Raises:
        ConfigError: it is not there, or the package `gguf` is not, which reads what it wrote.
    """
    path = Path(given).expanduser() if given else Path(shutil.which(CONVERTER) or CONVERTER)
    found = path / CONVERTER if path.is_dir() else path
    if not found.is_file():
        where = "there is no such file" if given else f"{CONVERTER} is not on PATH"
        raise ConfigError(
            "converter", given or "", f"form=gguf needs llama.cpp's converter, and {where}",
            "Clone github.com/ggml-org/llama.cpp, install its requirements.txt, and name it: "
            "converter=PATH/llama.cpp. Without it, form=merged writes what it converts.",
        )  # fmt: skip
    if find_spec("gguf") is None:
        raise ConfigError(
            "form", "gguf", "what the converter writes is read back with the package gguf, which "
            "is not installed", "Install it: pip install 'lorascope[gguf]'.",
        )  # fmt: skip
    return found.absolute()


def write_gguf(converter: Path, merged: Path, name: str, outtype: str, target: Path) -> None:
    """Have the converter make `target` of the folder `merged`.

    Args:
        name: that the file calls the model: else it would be the folder's.
        outtype: the converter's word for the type of matrices; vectors are float32.

    Raises:
        ConfigError: it fails, in its own words.
    """
    command = [str(converter), str(merged), "--outfile", str(target), "--outtype", outtype]
    if converter.suffix == ".py":
        command = [sys.executable, *command]
    done = subprocess.run(
        [*command, "--model-name", name], capture_output=True, text=True, errors="replace"
    )
    if done.returncode != 0 or not target.is_file():
        told = " | ".join((done.stderr or done.stdout).strip().splitlines()[-TOLD_LINES:])
        raise ConfigError(
            "form", "gguf", f"llama.cpp's converter failed ({told})", _remedy(told)
        )  # fmt: skip


def _remedy(told: str) -> str:
    if "ModuleNotFoundError" in told:
        return "Install llama.cpp's requirements.txt into the Python that runs lorascope."
    return (
        "If it does not know the architecture or the tokenizer, a newer llama.cpp may; "
        "form=merged writes what it converts."
    )


def check_gguf(file: Path, merged: Path, stop_token_ids: Sequence[int]) -> GgufCheck:
    """Read `file` back and compare it with the folder `merged`.

    Args:
        stop_token_ids: at which the merged model stops.

    Raises:
        VerificationError: a tensor has other bits, or one is missing; it has another chat template,
            or would stop elsewhere.
    """
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    quiet_libraries()
    reader = GGUFReader(file)
    architecture = str(_value(reader, "general.architecture"))
    template, end = _value(reader, "tokenizer.chat_template"), _value(reader, END)
    _require_same_text(file, template, end, merged, stop_token_ids)
    # Of a model with code of its own, transformers knows no class to read it into.
    read = architecture in GGUF_SUPPORTED_ARCHITECTURES and not runs_own_code(merged)
    return GgufCheck(
        file=file.name,
        architecture=architecture,
        tensors=len(reader.tensors),
        compared=_compare(file, merged) if read else None,
        has_chat_template=template is not None,
        end_token_id=int(end),
        adds_begin_token=_value(reader, "tokenizer.ggml.add_bos_token"),
    )


def _require_same_text(
    file: Path, template: str | None, end: int | None, merged: Path, stop_token_ids: Sequence[int]
) -> None:
    own = load_tokenizer(merged).chat_template
    # Of several, by name, a server takes the one for all purposes.
    own = own.get("default") if isinstance(own, dict) else own
    problem = None
    if template != own:
        problem = "its chat template is not the tokenizer's"
    elif end not in stop_token_ids:
        told = ", ".join(map(str, stop_token_ids))
        problem = f"it stops at token {end}, and the merged model at {told}"
    if problem is not None:
        raise VerificationError(
            f"{file.name}: {problem}. The converter does not fit this model: take another version "
            "of llama.cpp, or form=merged."
        )


def _value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _compare(file: Path, merged: Path) -> int:
    """Number of the merged model's tensors, all of which the file must have bit for bit: each type
    of 16 bits goes to float32 without loss."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = AutoConfig.from_pretrained(merged)
    with torch.device("meta"):
        model = class_of(merged).from_config(config)
    found = load_gguf_checkpoint(file, return_tensors=True, model_to_load=model)["tensors"]
    ends = _ends(model) if config.get_text_config().tie_word_embeddings else []
    # Of two that are one, each program names the one or the other.
    tied, compared = dict(zip(ends, reversed(ends), strict=True)), 0
    for weights in sorted(merged.glob(WEIGHTS)):
        with safe_open(weights, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dictionary)
                own = tensors.get_tensor(name).float()
                theirs = found.get(name, found.get(tied.get(name, name)))
                if theirs is None or not torch.equal(own, torch.as_tensor(theirs).float()):
                    state = "missing" if theirs is None else "other numbers than the merged model's"
                    raise VerificationError(
                        f"{file.name}: {name}: {state}. The converter does not fit this model: "
                        "take another version of llama.cpp, or form=merged."
                    )
                compared += 1
    return compared


def _ends(model: Any) -> list[str]:
    """Names of the weights of embeddings and head."""
    both = (model.get_output_embeddings(), model.get_input_embeddings())
    return [f"{name}.weight" for name, module in model.named_modules() if module in both]
