"""Sentences of an export: what was found when its files were loaded again, and how to load them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lorascope.records import AdapterCheck, GgufCheck, MergeRecord
from lorascope.reporting import units

COMPUTE = "bnb_4bit_compute_dtype"
BNB_SETTINGS = {
    "load_in_4bit": (
        "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", COMPUTE, "llm_int8_skip_modules",
    ),
    "load_in_8bit": ("llm_int8_threshold", "llm_int8_skip_modules"),
}  # fmt: skip
"""Of transformers' BitsAndBytesConfig, what decides stored weights and products: by its bits."""
FOLDER = "..."
OWN_METHOD = "lorascope"
"""Begins what config.json calls a quantization that lorascope adds to transformers."""
REGISTERS = "import lorascope.quantizers.torchao.stored  # how this base is stored"
NO_TEMPLATE = "It has no chat template, as the tokenizer has none"
BEGINS = {
    True: "has llama.cpp put its begin-of-text token before a prompt",
    False: "has llama.cpp put no begin-of-text token before a prompt",
    None: "leaves it to llama.cpp whether a begin-of-text token stands before a prompt",
}
"""By the file's add_bos_token."""
CAUSAL, CLASSES = "AutoModelForCausalLM", "AutoModelForSequenceClassification"


def adapter_checked(check: AdapterCheck) -> Iterator[str]:
    """What plain PEFT gave."""
    off = check.largest_logit_difference
    same = "the very logits" if off == 0 else f"logits within {off:.2g}"
    yield (
        f"Loaded again by PEFT's `PeftModel.from_pretrained`, on the base as it was trained, it "
        f"gives {same} of the trial on {check.items} validation items."
    )
    if check.scored_loss_nats is not None:
        yield (
            f"Its loss on these is {units.nats(check.loss_nats)} nats; the trial's scores say "
            f"{units.nats(check.scored_loss_nats)}."
        )


def merged_checked(record: MergeRecord) -> Iterator[str]:
    """What the rounding of merged weights cost, without that of a base that rounds activations."""
    off, agreeing = record.unrounded_logit_difference, record.unrounded_agreement
    off = record.largest_logit_difference if off is None else off
    agreeing = record.prediction_agreement if agreeing is None else agreeing
    yield (
        f"Loaded again by plain transformers and computed in float32 on {record.items} validation "
        f"items, beside adapter on base: weights in {record.precision} move logits by at most "
        f"{off:.2g}, {units.percent(agreeing)} % of predicted tokens or classes agree, and the "
        f"loss is {units.nats(record.merged_loss_nats)} instead of "
        f"{units.nats(record.adapter_loss_nats)} nats."
    )
    if record.untied_head:
        yield "Its head has a weight of its own, which the base shares with its embeddings."


def gguf_checked(check: GgufCheck) -> Iterator[str]:
    """What was read back from a GGUF file."""
    if check.compared is None:
        yield (
            f"The file has {check.tensors} tensors; they were not compared with the merged model's:"
            f" transformers does not read GGUF of {check.architecture}."
        )
    else:
        yield (
            f"All {check.compared} tensors of the merged model stand in the file bit for bit, as "
            f"transformers reads it ({check.architecture}, {check.tensors} tensors)."
        )
    template = "Its chat template is the tokenizer's" if check.has_chat_template else NO_TEMPLATE
    begins = BEGINS[check.adds_begin_token]
    yield f"{template}; it stops at token {check.end_token_id}, and {begins}."


def trained_for_a_grid(qat: object) -> str:
    """What an export lacks of a trial of train.qat."""
    return (
        f"It was trained so that its merged weights can be stored as {qat}. In 16 bits it is not "
        f"what it was trained for: `serve={qat}` scores it so, `lorascope quantize-merged` writes "
        "that model."
    )


@dataclass(frozen=True)
class LoadedBase:
    """What a card's Python loads the base of an adapter from."""

    name: str
    on_hub: bool
    """Whether that is its name on the hub, and not only in the study."""
    revision: str | None
    """Its commit there."""
    stored: Mapping[str, Any]
    """config.json of the base in its mode."""
    own: str
    """Folder of the base in its mode, for modes that only lorascope stores."""
    compute: str | None
    """Type that products of 4-bit weights ran in; None for what the mode was stored with."""
    classes: int | None
    own_code: bool
    """Whether it runs code from its own folder."""


def load_adapter_code(base: LoadedBase) -> list[str]:
    """Python that loads base and adapter."""
    known = base.stored.get("quantization_config")
    loader = CLASSES if base.classes else CAUSAL
    by_folder = not base.on_hub and (known is None or _is_bnb(known))
    imports = [loader, "AutoTokenizer", *(["BitsAndBytesConfig"] if _is_bnb(known) else [])]
    return [
        "```python",
        *([REGISTERS] if _method(known).startswith(OWN_METHOD) else []),
        "from peft import PeftModel",
        f"from transformers import {', '.join(imports)}",
        "",
        f'folder = "{FOLDER}"  # this folder, or its name on the hub',
        *([f'base_folder = "{FOLDER}"  # {base.name}, a folder'] if by_folder else []),
        f"base = {loader}.from_pretrained(",
        *(f"    {argument}," for argument in _base_arguments(base, known)),
        ")",
        "model = PeftModel.from_pretrained(base, folder).eval()",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
    ]


def _base_arguments(base: LoadedBase, known: Any) -> Iterator[str]:
    """Of from_pretrained, so that it stores what was scored. Weights are quantized from the type in
    which all others are stored."""
    by_name = known is None or _is_bnb(known)
    if by_name:
        yield f'"{base.name}"' if base.on_hub else "base_folder"
    else:
        yield f'"{base.own}"'
    if base.revision and by_name:
        yield f'revision="{base.revision}"'
    if base.classes:
        yield f"num_labels={base.classes}"
    if by_name:
        yield f'dtype="{base.stored.get("dtype") or base.stored.get("torch_dtype")}"'
    if _is_bnb(known):
        yield f"quantization_config=BitsAndBytesConfig({_bnb_arguments(base, known)})"
    if base.own_code:
        yield "trust_remote_code=True"


def _bnb_arguments(base: LoadedBase, known: Mapping[str, Any]) -> str:
    bits = next(name for name in BNB_SETTINGS if known.get(name))
    values = {bits: True} | {name: known.get(name) for name in BNB_SETTINGS[bits]}
    if COMPUTE in values and base.compute is not None:
        values[COMPUTE] = base.compute
    # A threshold of 0 is one.
    return ", ".join(
        _argument(name, value) for name, value in values.items() if value not in (None, [])
    )


def _argument(name: str, value: object) -> str:
    return f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}"


def _is_bnb(known: object) -> bool:
    return _method(known) == "bitsandbytes"


def _method(known: object) -> str:
    return str(known.get("quant_method", "")) if isinstance(known, Mapping) else ""


def load_merged_code(precision: str, classes: int | None, own_code: bool = False) -> list[str]:
    """Python that loads a merged model."""
    loader = CLASSES if classes else CAUSAL
    more = ", trust_remote_code=True" if own_code else ""
    return [
        "```python",
        f"from transformers import {loader}, AutoTokenizer",
        "",
        f'folder = "{FOLDER}"  # this folder, or its name on the hub',
        f'model = {loader}.from_pretrained(folder, dtype="{precision}"{more}).eval()',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
    ]
