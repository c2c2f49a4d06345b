"""A base that does not fit its config.json is refused by name; sound ones of all families pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from lorascope.bases.fetch import (
    expected_shapes,
    fetch_base,
    meta_model,
    require_sound_base,
)
from lorascope.bases.weights import require_sound_values
from lorascope.config import ModelConfig, ModelKind
from lorascope.errors import ModelError
from tests.conftest import SHARED, save_small_model

MINE = ModelConfig(name="mine", kind=ModelKind.local, path="here")
Tensors = dict[str, Tensor]
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "good"
    save_small_model(folder)
    return folder


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def set_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def weights(change: Callable[[Tensors], Tensors]) -> Callable[[Path], object]:
    return lambda folder: rewrite(folder, change)


def config(**values: object) -> Callable[[Path], object]:
    return lambda folder: set_config(folder, **values)


def with_value(value: float) -> Callable[[Path], object]:
    def change(tensors: Tensors) -> Tensors:
        tensors[UP][3, 5] = value
        return tensors

    return weights(change)


def with_another_head(tensors: Tensors) -> Tensors:
    return {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + 1}


DAMAGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a layer is missing": (
        weights(lambda t: {k: v for k, v in t.items() if "layers.1.mlp" not in k}),
        ["3 tensors are missing", "model.layers.1.mlp.down_proj.weight"],
    ),
    "a head that is not tied is missing": (
        config(tie_word_embeddings=False), ["1 tensors are missing (lm_head.weight)"],
    ),
    "embedding and tied head are missing": (
        weights(lambda t: {k: v for k, v in t.items() if "embed" not in k}), ["missing", "embed"],
    ),
    "keys lie under a prefix": (
        weights(lambda t: {f"_orig_mod.{k}": v for k, v in t.items()}),
        ["are missing", "have no place", "_orig_mod.model"],
    ),
    "config.json claims another architecture": (
        config(model_type="qwen2", architectures=["Qwen2ForCausalLM"]),
        ["Qwen2ForCausalLM", "6 tensors are missing", "self_attn.k_proj.bias"],
    ),
    "config.json claims fewer layers": (
        config(num_hidden_layers=1), ["have no place in it", "model.layers.1."],
    ),
    "the intermediate size is another": (
        config(intermediate_size=96), ["6 tensors have another shape", "[64, 128]", "[64, 96]"],
    ),
    "the vocabulary is another": (
        config(vocab_size=64), ["embed_tokens.weight", "in the file, [64, 64] in LlamaForCausalLM"],
    ),
    "config.json is impossible": (
        config(num_attention_heads=7), ["cannot build a model from its config.json"],
    ),
    "a weight is not a number": (
        with_value(float("nan")), [UP, "1 of 8,192 values", "NaN"],
    ),
    "a weight is infinite": (with_value(float("-inf")), [UP, "infinite"]),
    "weights are whole numbers": (
        weights(lambda t: {k: v.to(torch.int8) if k == UP else v for k, v in t.items()}),
        [UP, "whole numbers"],
    ),
    "a tied head has other values": (
        weights(with_another_head), ["ties lm_head.weight", "different values"],
    ),
    "the weights have been quantized": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        ["quantized already", "bitsandbytes"],
    ),
    "an adapter lies beside": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        ["holds an adapter"],
    ),
    "the file has another name": (
        lambda folder: (folder / "model.safetensors").rename(folder / "w.safetensors"),
        ["lacks weights under the name"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_base_that_does_not_fit_its_config_is_refused(
    good: Path, tmp_path: Path, damage: str
) -> None:
    spoil, parts = DAMAGES[damage]
    shutil.copytree(good, tmp_path / "here")
    spoil(tmp_path / "here")
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError) as caught:
        fetch_base(MINE, tmp_path / "out", tmp_path)
    for part in ["model.path='here'", *parts]:
        assert part in str(caught.value)
    assert not any((tmp_path / "out").iterdir())


def test_each_file_is_opened_once_for_its_values(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = meta_model(good, "good")
    opened: list[Path] = []

    def counted(path: Path, **settings: str) -> Any:
        opened.append(path)
        return safe_open(path, **settings)

    monkeypatch.setattr("lorascope.bases.weights.safe_open", counted)
    require_sound_values(good, "good", model)
    # Once more for the headers, of which ties are told.
    assert opened == [good / "model.safetensors"] * 2


def test_check_refuses_a_local_base_of_other_tensors_without_reading_values(
    good: Path, tmp_path: Path
) -> None:
    shutil.copytree(good, tmp_path / "here")
    with_value(float("nan"))(tmp_path / "here")
    assert expected_shapes(MINE, tmp_path) is not None
    DAMAGES["a layer is missing"][0](tmp_path / "here")
    with pytest.raises(ModelError, match="3 tensors are missing"):
        expected_shapes(MINE, tmp_path)


SIZES: dict[str, object] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 32, "head_dim": 16,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
FAMILIES: dict[str, dict[str, object]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 100},
    "gpt_neox": SIZES,
    "opt": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2, "vocab_size": 100},
    "falcon": {name: size for name, size in SIZES.items() if name != "head_dim"},
    "gemma3_text": SIZES,
    "mixtral": {**SIZES, "num_local_experts": 3},
    "qwen3_moe": {**SIZES, "num_experts": 3, "moe_intermediate_size": 16},
    "deepseek_v3": {
        **SIZES, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
        "moe_intermediate_size": 16, "first_k_dense_replace": 1, "q_lora_rank": 8,
        "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    },
    "gpt_oss": {**SIZES, "num_local_experts": 3, "num_experts_per_tok": 2},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_saves_is_sound_in_every_family(
    good: Path, tmp_path: Path, family: str
) -> None:
    """Fused experts are saved apart, heads tied: names and shapes are compared after conversion."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**FAMILIES[family])).save_pretrained(
        tmp_path
    )
    shutil.copyfile(good / "tokenizer.json", tmp_path / "tokenizer.json")
    require_sound_base(tmp_path, MINE)


def test_a_missing_expert_is_refused(good: Path, tmp_path: Path) -> None:
    test_what_transformers_saves_is_sound_in_every_family(good, tmp_path, "mixtral")
    rewrite(tmp_path, lambda t: {k: v for k, v in t.items() if "experts.1.w2" not in k})
    with pytest.raises(ModelError, match=r"experts|form that MixtralForCausalLM"):
        require_sound_base(tmp_path, MINE)


def test_tensors_that_old_files_hold_and_the_model_ignores_are_no_fault(
    good: Path, tmp_path: Path
) -> None:
    test_what_transformers_saves_is_sound_in_every_family(good, tmp_path, "gpt_neox")
    old = {
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(float("-inf")),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(2),
    }
    rewrite(tmp_path, lambda tensors: {**tensors, **old})
    require_sound_base(tmp_path, MINE)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real model is not beside the project")
def test_a_real_model_that_stores_only_its_tied_embedding_is_sound() -> None:
    folder = SHARED / "models" / "tinystories-656k"
    require_sound_base(folder, ModelConfig(name="t", kind=ModelKind.local, path=str(folder)))
