"""A merged folder in plain transformers: same logits, names, buffers, settings and stop tokens."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from lorascope.adapters.attach import attach, load_adapter, save_adapter
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.bases.weights import stored_tensors
from lorascope.config import MergeConfig, QuantConfig, Storage, Targets
from lorascope.data.tokenization import stop_token_ids
from lorascope.machine.devices import Device
from lorascope.objectives.completion import Completion
from lorascope.quantizers.loading import load_base, load_exact, load_stored, quantize_base
from lorascope.scoring.merge_check import (
    MergeCheck,
    MergedPredictions,
    close_enough,
)
from lorascope.scoring.merged_folder import MergedFiles, write_merged
from lorascope.scoring.merging import merge
from tests.data.samples import word_tokenizer
from tests.scoring.merge_peaks import SHARD_BYTES
from tests.scoring.test_evaluation import make_row

CPU = Device("cpu", "cpu")
END, TURN_END = 1, 2
"""</s>, which completions end with, and <turn>, at which the model's own files may stop."""
WORDS = ("<turn>", "<other>", *(f"w{number}" for number in range(60)))
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "pad_token_id": None,
    "eos_token_id": END,
}
MIXTURE: dict[str, Any] = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
CASES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
    "qwen3_moe": {
        "num_key_value_heads": 2, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "decoder_sparse_step": 1,
    },
    "deepseek_v3": {
        **MIXTURE, "num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 32,
        "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
    },
    "glm4_moe": {**MIXTURE, "num_key_value_heads": 2, "head_dim": 16},
    "gpt_neox": {"rotary_pct": 0.25},
    "llama": {
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    },
    "gemma2": {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 16},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "phi3": {"num_key_value_heads": 2},
}  # fmt: skip


def save_base(model_type: str, folder: Path, **settings: Any) -> None:
    """A random model whose logits, router and buffers all show a wrong value, and a tokenizer."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**{**SIZES, **CASES[model_type], **settings})
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.15)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.randn_like(buffer))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer(*WORDS)


def store_and_merge(root: Path, storage: Storage = Storage.float32) -> tuple[MergedFiles, Any]:
    """Store `root`/base, train nothing but random adapters, merge; files and adapter on base."""
    quant = QuantConfig(name="mode", storage=storage)
    stored, folder = root / storage.value, root / "merged"
    stored.mkdir()
    quantize_base(root / "base", quant, CPU, stored)
    adapted = attach(
        load_base(stored, quant, CPU), LoraConfig(targets=Targets.attention, rank=4), 0
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(adapted, root / "adapter", "base")
    folder.mkdir()
    merged = merge(load_stored(stored, quant), root / "adapter", torch.float32)
    files = write_merged(merged, root / "base", END, folder)
    return files, load_adapter(load_base(stored, quant, CPU), root / "adapter")


def set_generation(root: Path, **values: Any) -> None:
    (root / "base/generation_config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("model_type", "storage"),
    [
        *((model_type, Storage.float32) for model_type in CASES),
        # Experts, layers in one, a free and a tied head: what four bits store otherwise.
        *((model_type, Storage.nf4) for model_type in ("mixtral", "phi3", "llama", "qwen2")),
    ],
)
def test_a_merged_folder_in_plain_transformers_is_the_adapter_on_its_base(
    model_type: str, storage: Storage, tmp_path: Path
) -> None:
    save_base(model_type, tmp_path / "base")
    files, adapted = store_and_merge(tmp_path, storage)
    plain, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    rows = [make_row(str(n), f"w{n} w{n + 3}", f" w{n * 7 % 60} w9</s>") for n in range(6)]
    check = MergedPredictions(plain, rows, tokenizer(), 4, tmp_path, Completion()).check(adapted)
    assert check.largest_logit_difference < 1e-4
    assert check.merged_loss_nats == pytest.approx(check.adapter_loss_nats, abs=1e-5)
    assert stored_tensors(tmp_path / "merged").keys() == stored_tensors(tmp_path / "base").keys()
    assert files == MergedFiles([END], [])
    before, after = (
        json.loads((tmp_path / part / "config.json").read_text()) for part in ("base", "merged")
    )
    assert after == before


@pytest.mark.parametrize("model_type", ["mixtral", "llama"])
def test_int8_merges_pass_with_the_rounding_of_activations_told_apart(
    model_type: str, tmp_path: Path
) -> None:
    """The worst case: random weights, whose predictions are near ties, and experts that flip."""
    save_base(model_type, tmp_path / "base")
    _, adapted = store_and_merge(tmp_path, Storage.int8)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    draw = random.Random(0)
    rows = [
        make_row(str(n), *(f" {' '.join(draw.choices(WORDS[2:], k=k))}" for k in (8, 4)))
        for n in range(48)
    ]
    quant = QuantConfig(name="mode", storage=Storage.int8)
    exact = load_adapter(load_exact(tmp_path / "int8", quant, CPU), tmp_path / "adapter")
    said = MergedPredictions(plain, rows, tokenizer(), 16, tmp_path, Completion())
    check, unrounded = said.check(adapted), said.check(exact)
    limits = MergeConfig()
    assert unrounded.prediction_agreement == 1
    assert unrounded.largest_logit_difference < 1e-4
    assert not close_enough(check, None, limits)
    assert close_enough(check, unrounded, limits)
    wrong = replace(unrounded, largest_logit_difference=1.1)
    assert not close_enough(check, wrong, limits)


@pytest.mark.parametrize(
    "changed", [{"prediction_agreement": 0.89}, {"merged_loss_nats": 1.021},
                {"merged_loss_nats": float("nan")}]
)  # fmt: skip
def test_int8s_rounding_has_limits_of_its_own(changed: dict[str, Any]) -> None:
    exact = MergeCheck(9, 0.0, 1.0, 1.0, 1.0)
    rounded = MergeCheck(9, 5.0, 0.91, 1.0, 1.019)
    assert close_enough(rounded, exact, MergeConfig())
    assert not close_enough(replace(rounded, **changed), exact, MergeConfig())


@pytest.mark.parametrize(
    ("own", "merged"),
    [
        (END, END),
        ([END, TURN_END], [END, TURN_END]),
        ([TURN_END, 3, END], [TURN_END, 3, END]),
        (TURN_END, [END, TURN_END]),
        ([TURN_END, 3], [END, TURN_END, 3]),
        (None, END),
    ],
)
def test_generation_settings_are_the_bases_and_stop_at_the_trained_token(
    own: Any, merged: Any, tmp_path: Path
) -> None:
    save_base("llama", tmp_path / "base", eos_token_id=own)
    settings = {"eos_token_id": own, "do_sample": True, "temperature": 0.6, "top_p": 0.9}
    set_generation(tmp_path, **settings)
    files, _ = store_and_merge(tmp_path)
    written = json.loads((tmp_path / "merged/generation_config.json").read_text())
    assert written == {**settings, "eos_token_id": merged}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").generation_config
    assert loaded.eos_token_id == merged
    assert files.stop_token_ids == stop_token_ids(END, own)
    config = json.loads((tmp_path / "merged/config.json").read_text())
    stops = config.get("eos_token_id")
    assert stops is None if own is None else END in (stops if isinstance(stops, list) else [stops])


def test_settings_that_transformers_would_not_save_again_are_kept(tmp_path: Path) -> None:
    """Llama-2's own: a temperature without sampling, which a changed config is refused for."""
    save_base("llama", tmp_path / "base")
    settings = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": TURN_END}
    set_generation(tmp_path, **settings)
    store_and_merge(tmp_path)
    written = json.loads((tmp_path / "merged/generation_config.json").read_text())
    assert written == {**settings, "eos_token_id": [END, TURN_END]}


def test_a_base_without_generation_settings_stops_as_its_config_and_training_say(
    tmp_path: Path,
) -> None:
    save_base("llama", tmp_path / "base", eos_token_id=TURN_END)
    (tmp_path / "base/generation_config.json").unlink()
    files, _ = store_and_merge(tmp_path)
    assert files.stop_token_ids == [END, TURN_END]


def test_a_merged_model_generates_until_the_trained_token(tmp_path: Path) -> None:
    """The base's own files name another one: with them alone, generation would go on."""
    save_base("llama", tmp_path / "base", eos_token_id=TURN_END)
    store_and_merge(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    prompts = torch.tensor([[number, number + 1] for number in range(4, 60)])
    made = plain.generate(prompts, max_new_tokens=30, do_sample=False, pad_token_id=0)
    ended = [row.tolist() for row in made if END in row]
    assert ended
    for row in ended:
        assert set(row[row.index(END) + 1 :]) <= {0}


def test_a_config_for_older_programs_stays_one(tmp_path: Path) -> None:
    """transformers 5 writes `rope_parameters` where 4.x and other programs read `rope_theta`."""
    save_base("llama", tmp_path / "base")
    path = tmp_path / "base/config.json"
    values = json.loads(path.read_text())
    values["rope_theta"] = values.pop("rope_parameters")["rope_theta"]
    values["torch_dtype"] = values.pop("dtype")
    path.write_text(json.dumps(values))
    _, adapted = store_and_merge(tmp_path)
    assert json.loads((tmp_path / "merged/config.json").read_text()) == values
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    rows = [make_row("a", "w1 w2 w3", " w4</s>")]
    check = MergedPredictions(plain, rows, tokenizer(), 1, tmp_path, Completion()).check(adapted)
    assert check.largest_logit_difference < 1e-4


def test_files_are_cut_at_the_size_asked_for_and_hold_the_same_tensors(tmp_path: Path) -> None:
    save_base("mixtral", tmp_path / "base")
    store_and_merge(tmp_path)
    whole = load_file(tmp_path / "merged/model.safetensors")
    adapter, quant = tmp_path / "adapter", QuantConfig(name="mode", storage=Storage.float32)
    for folder in ("cut", "again"):
        (tmp_path / folder).mkdir()
    made = merge(load_stored(tmp_path / "float32", quant), adapter, torch.float32)
    write_merged(made, tmp_path / "base", END, tmp_path / "cut", shard_bytes=100_000)
    files = sorted((tmp_path / "cut").glob("*.safetensors"))
    assert len(files) > 2
    parts = [load_file(path) for path in files]
    for part in parts:
        assert len(part) == 1 or sum(tensor.nbytes for tensor in part.values()) <= 100_000
    together = {name: tensor for part in parts for name, tensor in part.items()}
    assert together.keys() == whole.keys()
    assert all(torch.equal(together[name], tensor) for name, tensor in whole.items())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "cut")
    loaded.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again/model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts a process's pages")
def test_a_base_is_stored_compared_and_merged_a_layer_at_a_time(tmp_path: Path) -> None:
    """As measured at b661fd2, with 261 MB in float32: 302 MB to compare, 306 MB to merge."""
    answer = subprocess.run(
        [sys.executable, "-m", "tests.scoring.merge_peaks", str(tmp_path)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    peaks = json.loads(answer.stdout)
    parameters, layer = peaks["parameters"], 4 * peaks["layer_parameters"]
    assert peaks["storing"] < parameters + layer
    assert peaks["comparing"] < 1.5 * layer
    assert peaks["merging"] < 2 * layer + 2 * SHARD_BYTES
    assert peaks["exact"] < 4 * parameters + layer
