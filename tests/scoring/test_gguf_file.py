"""GGUF: what was written is read back and held against the merged model, bit for bit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lorascope.data.tokenization import as_token_ids
from lorascope.errors import ConfigError, VerificationError
from lorascope.files.layout import Layout
from lorascope.reporting.export_text import gguf_checked
from lorascope.scoring.gguf_file import CONVERTER, check_gguf, find_converter, write_gguf

LLAMA_CPP = os.environ.get("LORASCOPE_LLAMA_CPP")
"""A clone of llama.cpp, whose converter then writes the file."""
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
"""Of a Llama's layers -> GGUF's."""
HEADS = {"attn_q": 4, "attn_k": 2}


@pytest.fixture
def merged(project: Layout, tmp_path: Path) -> Path:
    """The small Llama in bfloat16, as a merged model lies there."""
    pytest.importorskip("gguf")
    folder = tmp_path / "merged"
    shutil.copytree(project.base("small"), folder)
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"
    return {
        "model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }[name]  # fmt: skip


def write_by_hand(merged: Path, file: Path, spoilt: str = "") -> None:
    """A Llama's GGUF in bfloat16, whose rotary halves llama.cpp has as pairs of neighbours."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_eos_token_id(2)
    for name, tensor in load_file(merged / "model.safetensors").items():
        own = gguf_name(name)
        if (heads := HEADS.get(own.split(".")[-2])) is not None:
            rows, columns = tensor.shape
            halves = tensor.reshape(heads, 2, rows // heads // 2, columns)
            tensor = halves.swapaxes(1, 2).reshape(rows, columns)
        bits = tensor.contiguous().view(torch.int16).numpy().astype(np.uint16)
        if own == spoilt:
            bits.flat[7] ^= 1
        writer.add_tensor(own, bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_each_tensor_is_compared_bit_for_bit(merged: Path, tmp_path: Path) -> None:
    stored = load_file(merged / "model.safetensors")
    write_by_hand(merged, tmp_path / "right.gguf")
    found = check_gguf(tmp_path / "right.gguf", merged, [2])
    assert (found.architecture, found.tensors, found.compared) == ("llama", 20, len(stored))
    assert not found.has_chat_template
    assert "no chat template" in list(gguf_checked(found))[-1]
    assert (found.end_token_id, found.adds_begin_token) == (2, None)
    with pytest.raises(VerificationError, match="stops at token 2, and the merged model at 1, 5"):
        check_gguf(tmp_path / "right.gguf", merged, [1, 5])
    (merged / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(VerificationError, match="chat template is not the tokenizer's"):
        check_gguf(tmp_path / "right.gguf", merged, [2])
    (merged / "chat_template.jinja").unlink()
    for spoilt in ("blk.1.attn_k.weight", "token_embd.weight"):
        write_by_hand(merged, tmp_path / "wrong.gguf", spoilt)
        with pytest.raises(VerificationError, match=r"wrong\.gguf: .*other numbers"):
            check_gguf(tmp_path / "wrong.gguf", merged, [2])


def test_without_a_converter_the_error_says_where_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for given in (None, str(tmp_path), str(tmp_path / "nowhere")):
        with pytest.raises(ConfigError, match=r"ggml-org/llama\.cpp.*form=merged"):
            find_converter(given)
    (tmp_path / CONVERTER).write_text("")
    (tmp_path / CONVERTER).chmod(0o755)
    pytest.importorskip("gguf")
    for given in (None, str(tmp_path), str(tmp_path / CONVERTER)):
        assert find_converter(given) == tmp_path / CONVERTER


@pytest.mark.slow
@pytest.mark.skipif(LLAMA_CPP is None, reason="LORASCOPE_LLAMA_CPP names no clone of llama.cpp")
def test_llama_cpps_own_converter_keeps_every_bit_and_writes_the_same_file_twice(
    tmp_path: Path,
) -> None:
    """Of a model whose tokenizer llama.cpp knows: TinyStories'."""
    pytest.importorskip("gguf")
    source = Path(__file__).parents[3] / "shared" / "models" / "tinystories-656k"
    if not source.is_dir():
        pytest.skip("no shared model here")
    merged = tmp_path / "merged"
    shutil.copytree(source, merged, copy_function=shutil.copyfile)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float16)
    model.save_pretrained(merged)
    converter = find_converter(LLAMA_CPP)
    for name in ("one.gguf", "two.gguf"):
        write_gguf(converter, merged, "mine", "f16", tmp_path / name)
    stored = load_file(merged / "model.safetensors")
    stops = as_token_ids(model.generation_config.eos_token_id)
    assert check_gguf(tmp_path / "one.gguf", merged, stops).compared == len(stored)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
