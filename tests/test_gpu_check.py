"""The GPU check on a CPU with tiny shapes: bases, steps and arithmetic are the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_check.base_check import Asked, attempt, check_base
from benchmarks.gpu_check.findings import break_even, finding, line
from benchmarks.gpu_check.random_base import random_base
from benchmarks.gpu_check.records import (
    BARE,
    MODES,
    PACKED,
    BaseRow,
    Effort,
    Gain,
    LayerRow,
    StepRow,
)
from benchmarks.gpu_check.run import growing_checks, write_check
from lorascope.bases.transformers_config import stored_dtype
from lorascope.config import Config, Precision, QuantConfig, Storage
from lorascope.quantizers.footprint import measure_footprint
from lorascope.quantizers.loading import load_base, quantize_base, unquantized_dtype
from tests.conftest import REPOSITORY
from tests.packs import CPU

SIZES: dict[str, object] = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": None,
    "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
TINY: dict[str, dict[str, object]] = {
    "tiny-llama": {"model_type": "llama", **SIZES, "torch_dtype": "float16"},
    "tiny-gemma": {
        "model_type": "gemma", **SIZES, "num_key_value_heads": 1, "head_dim": 32,
        "torch_dtype": "bfloat16",
    },
}  # fmt: skip
SIXTEEN_BITS = {
    torch.float16: QuantConfig("fp16", Storage.float16),
    torch.bfloat16: QuantConfig("bf16", Storage.bfloat16),
}
QUICK = Effort(
    tokens=(4, 64), trials=(1, 2), warm_up_steps=2, measured_steps=2, layer_tokens=8,
    layer_calls=1,
)  # fmt: skip
PLAN_TOLERANCE_PERCENT = 0.1
"""As in tests/planning/test_prediction.py."""
ROW = StepRow("tiny-llama", "nf4", PACKED, 1, 4)


def asked(shape: str, quant: QuantConfig, seconds: float = 600) -> Asked:
    return Asked(shape, TINY[shape], quant, CPU, QUICK, time.monotonic() + seconds)


def timed(
    path: str,
    trials: int,
    tokens: int,
    seconds: float,
    peak_and_plan: tuple[int, int] | None = None,
) -> StepRow:
    peak, plan = peak_and_plan or (None, None)
    return StepRow(
        ROW.shape, ROW.mode, path, trials, tokens, seconds, peak_bytes=peak, planned_bytes=plan
    )


def test_modes_are_those_of_conf(compose: Callable[..., Config]) -> None:
    assert [compose(f"quant={quant.name}").quant for quant in MODES] == list(MODES)


@pytest.mark.parametrize("quant", MODES, ids=lambda quant: quant.name)
@pytest.mark.parametrize("shape", TINY)
def test_a_random_base_is_what_the_stages_make_of_the_same_weights(
    tmp_path: Path, shape: str, quant: QuantConfig
) -> None:
    stored = unquantized_dtype(quant, stored_dtype(TINY[shape]))
    source = random_base(shape, TINY[shape], SIXTEEN_BITS[stored], CPU).model
    source.to(stored).save_pretrained(tmp_path / "base")
    quantize_base(tmp_path / "base", quant, CPU, tmp_path / "stored")
    staged = load_base(tmp_path / "stored", quant, CPU)
    ours = random_base(shape, TINY[shape], quant, CPU).model
    ids = torch.randint(96, (2, 7))
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, staged(ids).logits)
    assert measure_footprint(ours).total_bytes == measure_footprint(staged).total_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "quant"),
    list(zip([*TINY, *TINY], MODES, strict=True)),
    ids=lambda value: getattr(value, "name", value),
)
def test_every_row_of_a_base_is_measured_and_peaks_are_those_of_the_plan(
    shape: str, quant: QuantConfig
) -> None:
    rows = list(check_base(asked(shape, quant)))
    assert [row.failure for row in rows if row.failure] == []
    (base,) = (row for row in rows if isinstance(row, BaseRow))
    layers = [row for row in rows if isinstance(row, LayerRow)]
    steps = [row for row in rows if isinstance(row, StepRow)]
    assert (base.base_bytes or 0) > 0
    # Seven linear layers in each of two blocks.
    assert sum(row.layers for row in layers) == (0 if quant.name == "fp16" else 14)
    assert [(row.path, row.trials, row.tokens_a_trial) for row in steps] == [
        (PACKED, 1, 4), (PACKED, 1, 64), (BARE, 1, 4), (BARE, 1, 64), (PACKED, 2, 4),
        (PACKED, 2, 64),
    ]  # fmt: skip
    for row in steps:
        if row.path == PACKED:
            assert abs(row.plan_error_percent or 100) < PLAN_TOLERANCE_PERCENT


def test_another_computing_type_in_the_same_process_is_measured_too() -> None:
    """Accelerate keeps a mixed precision for a process; a GPU's modes need two of them."""
    four_bits = QuantConfig("nf4", Storage.nf4, compute=Precision.bfloat16)
    brief = replace(QUICK, tokens=(4,), trials=(1,))
    for quant in (MODES[0], four_bits):
        rows = list(check_base(replace(asked("tiny-llama", quant), effort=brief)))
        assert [row.failure for row in rows if row.failure] == []


def test_a_measurement_that_fails_is_a_row_with_its_reason() -> None:
    def failing(row: StepRow) -> StepRow:
        raise ValueError("no such\nkernel")

    def full(row: StepRow) -> StepRow:
        raise torch.OutOfMemoryError("tried 8 GiB")

    later = time.monotonic() + 600
    assert attempt(ROW, later, failing) == replace(ROW, failure="ValueError: no such kernel")
    assert attempt(ROW, later, full).failure.startswith("does not fit this device: ")


def test_a_base_that_cannot_be_made_leaves_the_others(tmp_path: Path) -> None:
    configs: dict[str, dict[str, object]] = {
        "unknown": {"model_type": "no-such-model"},
        "tiny-llama": TINY["tiny-llama"],
    }
    brief = replace(QUICK, tokens=(4,), trials=(1,))
    *_, check = growing_checks(configs, [MODES[2]], CPU, brief, on_row=lambda row: None)
    assert [bool(base.failure) for base in check.bases] == [True, False]
    assert {row.shape for row in check.steps} == {"tiny-llama"}
    page = write_check(tmp_path, replace(check, device_name="cuda: NVIDIA H100 80GB"))
    assert page.name.startswith("nvidia-h100-80gb-")
    record = json.loads(page.with_suffix(".json").read_text())
    assert record["steps"][0]["step_seconds"] == check.steps[0].step_seconds
    assert "no-such-model" in page.read_text().split("## Not measured")[1]


def test_what_the_deadline_cuts_off_is_told_and_not_begun() -> None:
    (base,) = check_base(asked("tiny-llama", MODES[0], seconds=-1))
    assert base.failure == "left out: the time was over"


def test_line_gives_floor_and_cost_of_a_token_with_its_residual() -> None:
    assert line({10: 0.3, 20: 0.4, 40: 0.6}) == pytest.approx((0.2, 0.01, 0), abs=1e-9)
    # Residuals of least squares through (0, 1), (1, 2), (2, 4): 1/6, 2/6, 1/6.
    assert line({0: 1.0, 1: 2.0, 2: 4.0})[2] == pytest.approx(100 * (1 / 3) / 2)
    assert line({10: 0.3, 20: 0.4}) == (None, None, None)


def test_findings_follow_from_the_rows_of_a_base() -> None:
    steps = [
        timed(PACKED, 1, 16, 0.10), timed(PACKED, 1, 64, 0.20, (100, 97)),
        timed(BARE, 1, 16, 0.12), timed(PACKED, 8, 16, 0.20),
        timed(PACKED, 8, 64, 1.60, (200, 202)),
        replace(ROW, tokens_a_trial=256, failure="does not fit"),
    ]  # fmt: skip
    layer = LayerRow("tiny-llama", "nf4", 64, 128, 3, 8, 0.005, 0.003)
    found = finding(BaseRow("tiny-llama", "nf4", 1), steps, [layer, replace(layer, layers=1)])
    assert found.launch_floor_seconds == 0.10
    assert [(g.trials, g.tokens_a_trial) for g in found.gains] == [(8, 16), (8, 64)]
    assert [g.ratio for g in found.gains] == pytest.approx([4.0, 1.0])
    assert [g.ratio for g in found.bare_ratios] == pytest.approx([1.2])
    assert found.break_even_tokens_a_trial == 16
    assert found.dequantization_seconds == pytest.approx(4 * 0.002)
    assert found.largest_plan_error_percent == pytest.approx(-3.0)


@pytest.mark.parametrize(
    ("gains", "tokens"),
    [
        ([], None),
        ([Gain(2, 16, 1.5), Gain(8, 16, 1.01)], 0),
        ([Gain(8, 16, 1.5), Gain(8, 64, 1.03), Gain(8, 256, 1.02)], 64),
    ],
)
def test_break_even_is_that_of_the_largest_packs(gains: list[Gain], tokens: int | None) -> None:
    assert break_even(gains) == tokens


@pytest.mark.slow
def test_without_cuda_it_says_so_and_ends_well(tmp_path: Path) -> None:
    """From a checkout whose package is on the path and not installed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY / "src"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--output", str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert "no CUDA device" in done.stdout
    assert not list(tmp_path.iterdir())
