"""The Python of a card: what it stores is what lorascope stored, and the adapter was scored on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorascope.adapters.class_head import head_names
from lorascope.quantizers.loading import load_base
from lorascope.reporting.export_text import LoadedBase, load_adapter_code, load_merged_code
from tests.class_bases import config_values, make_class_base
from tests.devices import CPU


@pytest.mark.parametrize("storage", ["int8", "nf4"])
def test_transformers_stores_the_base_as_lorascope_did_where_the_card_says_so(
    tmp_path: Path, storage: str
) -> None:
    """Of a BERT, whose head and pooler no mode quantizes; the head comes with the adapter."""
    made = make_class_base("pretrained_bert", tmp_path, storage)
    stored = config_values(made.stored)
    told = LoadedBase(
        name=str(tmp_path / "source"), on_hub=True, revision=None, stored=stored, own="",
        compute="float32", classes=2, own_code=False,
    )  # fmt: skip
    lines = [line for line in load_adapter_code(told)[1:-1] if "peft" not in line.lower()]
    code = "\n".join(line for line in lines if "tokenizer =" not in line)
    assert "fp4" not in code
    found: dict[str, torch.nn.Module] = {}
    exec(code, found)
    theirs, ours = found["base"].eval(), load_base(made.stored, made.quant, CPU)
    heads = head_names(ours)
    assert heads
    # As they are stored: lorascope then computes in float32.
    own = {
        name: value.to(theirs.state_dict()[name].dtype) for name, value in ours.state_dict().items()
    }
    assert own.keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert name.startswith(tuple(heads)) or torch.equal(value, own[name]), name
    if storage == "nf4":
        assert 'bnb_4bit_compute_dtype="float32"' in code


def test_a_base_with_code_of_its_own_is_trusted_by_name() -> None:
    told = LoadedBase(
        name="me/base", on_hub=True, revision="abc", stored={"dtype": "bfloat16"}, own="",
        compute=None, classes=None, own_code=True,
    )  # fmt: skip
    (call,) = [
        " ".join(line.split())
        for line in ["".join(load_adapter_code(told)).partition("base = ")[2].partition(")")[0]]
    ]
    assert call.startswith('AutoModelForCausalLM.from_pretrained( "me/base", revision="abc",')
    assert 'dtype="bfloat16"' in call
    assert "trust_remote_code=True" in call
    assert "trust_remote_code=True" in "".join(load_merged_code("float16", None, True))
    assert "trust_remote_code" not in "".join(load_merged_code("float16", None))
