"""Sentences of an export: what was found when its files were loaded again, and how to load them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lorascope.records import AdapterCheck, GgufCheck, MergeRecord
from lorascope.reporting import units

BNB_SETTINGS = ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")
"""Of transformers' BitsAndBytesConfig, what decides the stored weights."""
FOLDER = "..."
OWN_METHOD = "lorascope"
"""Begins what config.json calls a quantization that lorascope adds to transformers."""
REGISTERS = "import lorascope.quantizers.torchao.stored  # how this base is stored"
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
    template = "is the tokenizer's" if check.has_chat_template else "IS NOT the tokenizer's"
    yield f"Its chat template {template}; it stops at token {check.end_token_id}."


def trained_for_a_grid(qat: object) -> str:
    """What an export lacks of a trial of train.qat."""
    return (
        f"It was trained so that its merged weights can be stored as {qat}. In 16 bits it is not "
        f"what it was trained for: `serve={qat}` scores it so, `lorascope quantize-merged` writes "
        "that model."
    )


def load_adapter_code(
    base: str,
    on_hub: bool,
    revision: str | None,
    stored: Mapping[str, object],
    classes: int | None,
    own: str,
) -> list[str]:
    """Python that loads base and adapter.

    Args:
        on_hub: whether `base` is a name on the hub, and not only in the study.
        stored: config.json of the base in its mode.
        own: folder of the base in its mode, for modes that only lorascope stores.
    """
    known = stored.get("quantization_config")
    loader = CLASSES if classes else CAUSAL
    by_name = known is None or _is_bnb(known)
    arguments = [f'"{base}"' if on_hub else "base_folder"] if by_name else [f'"{own}"']
    imports = [loader, "AutoTokenizer"]
    if revision and by_name:
        arguments.append(f'revision="{revision}"')
    if classes:
        arguments.append(f"num_labels={classes}")
    if known is None:
        arguments.append(f'dtype="{stored.get("dtype") or stored.get("torch_dtype")}"')
    elif isinstance(known, Mapping) and _is_bnb(known):
        imports.append("BitsAndBytesConfig")
        told = ", ".join(_argument(name, known[name]) for name in BNB_SETTINGS if known.get(name))
        arguments.append(f"quantization_config=BitsAndBytesConfig({told})")
    return [
        "```python",
        *([REGISTERS] if _method(known).startswith(OWN_METHOD) else []),
        "from peft import PeftModel",
        f"from transformers import {', '.join(imports)}",
        "",
        f'folder = "{FOLDER}"  # this folder, or its name on the hub',
        *(
            [f'base_folder = "{FOLDER}"  # {base}, a folder']
            if arguments[0] == "base_folder"
            else []
        ),
        f"base = {loader}.from_pretrained({', '.join(arguments)})",
        "model = PeftModel.from_pretrained(base, folder).eval()",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
    ]


def _argument(name: str, value: object) -> str:
    return f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}"


def _is_bnb(known: object) -> bool:
    return _method(known) == "bitsandbytes"


def _method(known: object) -> str:
    return str(known.get("quant_method", "")) if isinstance(known, Mapping) else ""


def load_merged_code(precision: str, classes: int | None) -> list[str]:
    """Python that loads a merged model."""
    loader = CLASSES if classes else CAUSAL
    return [
        "```python",
        f"from transformers import {loader}, AutoTokenizer",
        "",
        f'folder = "{FOLDER}"  # this folder, or its name on the hub',
        f'model = {loader}.from_pretrained(folder, dtype="{precision}").eval()',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
    ]


def load_gguf_code(file: str) -> list[str]:
    """A command that loads a GGUF file."""
    return ["```", f"llama-server -m {file}", "```"]
