"""Codes that auto-round chooses on rows: its own model, stored, loaded again, and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.config import QuantConfig, Rounding, Storage
from lorascope.data.calibration import CalibrationRows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError, ModelError, RecordError
from lorascope.files.calibration import read_beside_model
from lorascope.files.store import sha256_of_files
from lorascope.quantizers.autoround import library
from lorascope.quantizers.footprint import measure_footprint
from lorascope.quantizers.kinds import require_readable
from lorascope.quantizers.loading import load_exact, quantize_base
from lorascope.records import RoundingRecord
from tests.conftest import save_small_model
from tests.devices import CPU

pytest.importorskip("auto_round", reason="the extra auto-round is not installed")

ROWS = torch.randint(3, 100, (12, 24), generator=torch.Generator().manual_seed(0))
OTHERS = torch.randint(3, 100, (8, 24), generator=torch.Generator().manual_seed(1))
MODES = {
    quant.name: quant
    for quant in (
        QuantConfig("tuned", Storage.int4_sym, group_size=32, rounding=Rounding.auto_round),
        QuantConfig("two", Storage.uint2_asym, group_size=32, rounding=Rounding.auto_round),
        QuantConfig("awq", Storage.uint4_asym, rounding=Rounding.awq),
    )
}
for _mode in MODES.values():
    _mode.rounding_steps = 50 if _mode.rounding is Rounding.auto_round else 200


def rows(count: int = len(ROWS)) -> CalibrationRows:
    # Rows of several lengths.
    return CalibrationRows([own[: 24 - i % 5].tolist() for i, own in enumerate(ROWS[:count])], "d")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, and the base in each mode and in the nearest codes of its grid."""
    place = tmp_path_factory.mktemp("autoround")
    save_small_model(place / "base")
    for quant in MODES.values():
        quantize_base(place / "base", quant, CPU, place / quant.name, rows())
        nearest = QuantConfig("nearest", quant.storage, group_size=quant.group_size)
        quantize_base(place / "base", nearest, CPU, place / f"{quant.name} nearest")
    return place


@torch.no_grad()
def logits(model: nn.Module, ids: Tensor = OTHERS) -> Tensor:
    result: Tensor = model(input_ids=ids).logits
    return result


def full(folder: Path) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def own_model(base: Path, quant: QuantConfig) -> nn.Module:
    """auto-round's model by its own interface."""
    from auto_round import AutoRound

    bits = {Storage.int4_sym: 4, Storage.uint2_asym: 2, Storage.uint4_asym: 4}[quant.storage]
    descends = quant.rounding is Rounding.auto_round
    longest = max(map(len, rows().token_ids)) if descends else 0
    data = []
    for ids in rows().token_ids:
        # 1 is this tokenizer's padding.
        padded = torch.tensor([ids + [1] * (longest - len(ids))])
        data.append({"input_ids": padded, "attention_mask": (padded != 1).long()})
    own = {"iters": 50, "batch_size": 8} if descends else {"batch_size": 1}
    work: Any = AutoRound(
        full(base), load_tokenizer(base), bits=bits, group_size=quant.group_size or -1,
        sym="_sym" in quant.storage, dataset=data, nsamples=len(data), seqlen=1,
        alg_configs=quant.rounding.value, **own, device_map="cpu", amp=False,
        low_cpu_mem_usage=False, enable_torch_compile=False, scale_dtype="fp16",
    )  # fmt: skip
    model: nn.Module = work.quantize()[0]
    for name, parameter in model.named_parameters():
        if not name.endswith("_proj.weight"):
            parameter.data = parameter.data.half().float()
    return model.eval()


@pytest.mark.parametrize("name", MODES)
def test_what_is_loaded_is_the_model_that_auto_round_left(stored: Path, name: str) -> None:
    quant = MODES[name]
    loaded = load_exact(stored / name, quant, CPU)
    own = own_model(stored / "base", quant)
    torch.testing.assert_close(logits(loaded), logits(own), rtol=0, atol=2e-5)
    # Same bytes as the nearest codes take, by shapes too.
    nearest = load_exact(stored / f"{name} nearest", quant, CPU)
    assert measure_footprint(loaded).total_bytes == measure_footprint(nearest).total_bytes
    assert not torch.equal(logits(loaded), logits(nearest))


@pytest.mark.parametrize("name", ["tuned", "two"])
def test_descent_lowers_the_error_of_rounding(stored: Path, name: str) -> None:
    """On rows that it has not read."""
    exact = logits(full(stored / "base"))
    error = {
        folder: float((logits(load_exact(stored / folder, MODES[name], CPU)) - exact).pow(2).mean())
        for folder in (name, f"{name} nearest")
    }
    assert error[name] < 0.9 * error[f"{name} nearest"]


def test_awq_takes_from_norms_what_it_gives_to_weights(stored: Path) -> None:
    awq, nearest = (load_exact(stored / f, MODES["awq"], CPU) for f in ("awq", "awq nearest"))
    norm = "model.layers.0.post_attention_layernorm.weight"
    assert not torch.equal(awq.get_parameter(norm), nearest.get_parameter(norm))


def test_equal_runs_store_equal_bytes_and_the_record_says_of_what(
    stored: Path, tmp_path: Path
) -> None:
    quant = MODES["tuned"]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    quantize_base(stored / "base", quant, CPU, tmp_path / "again", rows())
    assert torch.equal(torch.get_rng_state(), before)
    assert sha256_of_files(tmp_path / "again") == sha256_of_files(stored / "tuned")
    record = read_beside_model(tmp_path / "again", RoundingRecord)
    assert record.library.startswith("auto-round 0.")
    assert (record.rounding, record.steps, record.rows) == ("auto_round", 50, 12)
    assert (record.layers, record.rounded_to_nearest) == (14, [])
    assert record.tokens == sum(len(ids) for ids in rows().token_ids)
    (tmp_path / "again" / "rounding.json").unlink()
    with pytest.raises(RecordError, match="no such record"):
        read_beside_model(tmp_path / "again", RoundingRecord)


def test_what_is_for_serving_or_has_no_library_is_refused(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quant = MODES["tuned"]
    with pytest.raises(ConfigError, match=r"for serving.*serve=tuned"):
        require_readable(LoraConfig(), quant)
    with pytest.raises(ConfigError, match="none are given"):
        quantize_base(stored / "base", quant, CPU, tmp_path)
    with pytest.raises(ConfigError, match="reads none"):
        quantize_base(stored / "base", QuantConfig("n", Storage.int4_sym), CPU, tmp_path, rows())
    gptq = QuantConfig("int4_gptq", Storage.int4_sym, rounding=Rounding.gptq)
    with pytest.raises(ConfigError, match="CUDA alone"):
        library.require_library(gptq)
    library.require_library(quant)
    monkeypatch.setattr(library, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="is not installed"):
        library.require_library(quant)
    library.require_library(QuantConfig("n", Storage.int4_sym))


def test_a_tokenizer_without_padding_will_do(stored: Path, tmp_path: Path) -> None:
    bare = tmp_path / "base"
    shutil.copytree(stored / "base", bare)
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    quant = replace(MODES["tuned"], rounding_steps=2)
    quantize_base(bare, quant, CPU, tmp_path / "stored", rows())
    assert torch.isfinite(logits(load_exact(tmp_path / "stored", quant, CPU))).all()


def test_a_model_that_auto_round_cannot_read_is_an_error_in_words(
    stored: Path, tmp_path: Path
) -> None:
    quant = MODES["tuned"]
    outside = CalibrationRows([[3, 5, 100_000]], "d")
    with pytest.raises(ModelError, match="auto-round cannot work on LlamaForCausalLM"):
        quantize_base(stored / "base", quant, CPU, tmp_path, outside)
