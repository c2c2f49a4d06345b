"""Bases: what is lacking is named before anything is loaded, and shapes need no weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
)

from lorascope.adapters.layers import linear_shapes
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.targets import peft_targets, select
from lorascope.bases.fetch import describe, fetch_base
from lorascope.bases.folder import check_folder
from lorascope.config import ModelConfig, ModelKind, Targets
from lorascope.errors import ConfigError, ModelError
from lorascope.records import ModelParts
from tests.conftest import SHARED, save_small_model

LOCAL = ModelConfig(name="mine", kind=ModelKind.local, path="here")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "good"
    save_small_model(folder)
    return folder


def without(pattern: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for path in folder.glob(pattern):
            path.unlink()

    return remove


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_mine.Mine"}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (without("config.json"), ["config.json", "save_pretrained"]),
        (without("*.safetensors"), ["lacks weights", "safetensors"]),
        (pickled, ["pickled weights", "save_pretrained"]),
        (truncated, ["model.safetensors", "cannot be read"]),
        (without("tokenizer.json"), ["lacks a tokenizer"]),
        (with_own_code, ["auto_map", "trust_remote_code"]),
        (shutil.rmtree, ["no such folder"]),
    ],
)
def test_a_folder_that_lacks_something_is_refused_by_name(
    good: Path, tmp_path: Path, damage: Callable[[Path], None], parts: list[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(good, folder)
    damage(folder)
    with pytest.raises(ModelError) as caught:
        check_folder(folder, LOCAL)
    for part in ["model.path='here'", *parts]:
        assert part in str(caught.value)


def test_unreadable_weights_keep_the_librarys_own_error(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "copy")
    truncated(tmp_path / "copy")
    with pytest.raises(ModelError) as caught:
        check_folder(tmp_path / "copy", LOCAL)
    assert isinstance(caught.value.__cause__, SafetensorError)


def test_a_hub_model_without_network_says_how_to_warm_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = ModelConfig(name="far", kind=ModelKind.hub, repository="no/where", revision="0" * 40)
    with pytest.raises(ModelError, match=r"no/where.*hf download no/where --revision 000"):
        fetch_base(model, tmp_path, tmp_path)


def test_a_tokenizer_without_end_of_text_is_refused(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "copy")
    tokenizer = AutoTokenizer.from_pretrained(good)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "copy")
    with pytest.raises(ModelError, match="no end-of-text token"):
        describe(tmp_path / "copy")


def test_description_counts_a_tied_head_once(good: Path) -> None:
    description = describe(good)
    model = AutoModelForCausalLM.from_pretrained(good)
    assert description.tied_head
    assert description.parameters == sum(p.numel() for p in model.parameters())
    assert len(description.linear_shapes) == 14


RECIPES: dict[str, PretrainedConfig] = {
    "Llama-2 and TinyLlama": LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=128, tie_word_embeddings=False,
    ),
    "SmolLM2, grouped queries and a tied head": LlamaConfig(
        hidden_size=72, intermediate_size=192, num_hidden_layers=2, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=128, tie_word_embeddings=True,
    ),
    "gemma": GemmaConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32, vocab_size=128,
    ),
    "GPT-2, fused and transposed": GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=128),
    "GPT-NeoX, fused": GPTNeoXConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=128,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("targets", [Targets.all_linear, Targets.attention, Targets.q_v])
@pytest.mark.parametrize("rank", [1, 8])
def test_counts_from_shapes_equal_peft_on_every_recipe_architecture(
    name: str, targets: Targets, rank: int
) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(RECIPES[name])
        shapes = linear_shapes(model)
        lora = LoraConfig(targets=targets, rank=rank)
        if targets is Targets.q_v and "fused" in name:
            with pytest.raises(ConfigError, match="one matrix here"):
                select(ModelParts(shapes, []), lora)
            return
        chosen = select(ModelParts(shapes, []), lora)
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(r=rank, target_modules=peft_targets(shapes, chosen))
        )
    expected = sum(rank * (shape.in_features + shape.out_features) for shape in chosen)
    assert adapted.get_nb_trainable_parameters()[0] == expected


def test_targets_that_match_nothing_list_what_there_is(good: Path) -> None:
    shapes = describe(good).linear_shapes
    with pytest.raises(ConfigError, match=r"c_attn.*down_proj.*q_proj"):
        select(ModelParts(shapes, []), LoraConfig(targets=Targets.modules, modules=["c_attn"]))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real model is not beside the project")
def test_a_real_model_is_described_and_copied_whole(tmp_path: Path) -> None:
    source = SHARED / "models" / "tinystories-656k"
    model = ModelConfig(name="tinystories", kind=ModelKind.local, path=str(source))
    assert fetch_base(model, tmp_path, tmp_path) is None
    description = describe(tmp_path)
    assert description.parameters == 656_000
    assert description.tied_head


@pytest.mark.parametrize(
    "name", ["spiece.model", "mine.tiktoken", "tekken.json", "additional_chat_templates/tool.jinja"]
)
def test_every_file_of_a_tokenizer_comes_with_the_base(
    good: Path, tmp_path: Path, name: str
) -> None:
    """What a merged model's folder gets is what the base was prepared with."""
    source, folder = tmp_path / "here", tmp_path / "base"
    shutil.copytree(good, source)
    folder.mkdir()
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("{}")
    fetch_base(LOCAL, folder, tmp_path)
    assert (folder / name).read_text() == "{}"
