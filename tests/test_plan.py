"""What a plan says, which trials are refused for want of memory, and predictions in reports."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.config import Config
from lorascope.config_rules import validate
from lorascope.devices import Device
from lorascope.errors import ConfigError, ModelError
from lorascope.known_configs import known_config
from lorascope.layout import Layout
from lorascope.maths.memory import GPU_SIZES_GB, largest_within
from lorascope.memory_limit import memory_limit
from lorascope.memory_plan import needed_bytes, plan_memory
from lorascope.memory_refusal import generous_need
from lorascope.plan_subject import subject_of
from lorascope.records import Status, TrialRecord
from lorascope.reporting.memory_prediction_table import (
    memory_prediction_rows,
    memory_prediction_table,
    worst_memory_error,
)
from lorascope.stages import plan, train_lora
from lorascope.store import read_record
from tests.conftest import REPOSITORY
from tests.study_factory import example_study

CPU = Device("cpu", "cpu")


def test_one_trial_is_planned_in_detail_with_what_fits_every_gpu(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    (planned,) = plan.run([compose("quant=nf4_dq", "lora.rank=8")], project)
    shown = capsys.readouterr().out
    assert planned.tokens == 7
    assert "8 x 7 tokens" in shown
    assert "quantization constants" in shown
    rows = shown.partition("Largest micro-batch")[2].splitlines()[1:]
    assert [float(row.split()[0]) for row in rows] == list(GPU_SIZES_GB)
    batches = [int(row.split()[2]) for row in rows]
    assert batches == sorted(batches)
    assert batches[0] > 1000


def test_a_sweep_is_planned_with_one_line_a_trial(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    configs = [
        compose(f"quant={mode}", f"lora.rank={rank}", "runtime.memory_limit_gb=0.001")
        for mode in ("fp16", "nf4")
        for rank in (2, 64, 512)
    ]
    plans = plan.run(configs, project)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[:2] for line in lines] == [
        [config.quant.name, str(config.lora.rank)] for config in configs
    ]
    assert lines[-1].endswith("not 0.001 GB")
    alone = plan.run([configs[1]], project)[0]
    assert plans[1].adapter_bytes == alone.adapter_bytes
    assert plans[1].peak_bytes["train"] == pytest.approx(alone.peak_bytes["train"], rel=0.02)


def test_a_trial_that_cannot_fit_is_a_record_and_is_tried_again_with_more(
    project: Layout, compose: Callable[..., Config]
) -> None:
    tight = compose("quant=nf4", "seed=91", "runtime.memory_limit_gb=0.0005")
    record = train_lora.run(tight, project)
    assert record.status is Status.refused
    assert "runtime.memory_limit_gb=0.0005" in str(record.reason)
    assert record.plan is not None
    assert needed_bytes(record.plan) > 0.0005e9
    folder = project.trials("nf4") / record.trial
    assert read_record(folder, TrialRecord) == record
    assert not (folder / "adapter").exists()
    again = train_lora.run(compose("quant=nf4", "seed=91"), project)
    assert again.status is Status.completed


def test_a_finished_trial_carries_its_prediction(
    project: Layout, compose: Callable[..., Config]
) -> None:
    record = train_lora.run(compose("quant=nf4", "seed=92"), project)
    assert record.plan is not None
    assert record.result is not None
    (row,) = memory_prediction_rows(replace(example_study(), trials=[record]))
    assert row.base_bytes == row.measured_base_bytes
    assert row.train_error == pytest.approx(0, abs=0.001)
    assert row.evaluate_error == pytest.approx(0, abs=0.001)
    assert worst_memory_error([row]) == pytest.approx(0, abs=0.001)


def test_unknown_predictions_are_blank() -> None:
    rows = memory_prediction_rows(example_study())
    assert worst_memory_error(rows) is None
    table = memory_prediction_table(rows)
    assert ",,," in table.csv()
    assert "Train error %" not in table.markdown()


@pytest.mark.parametrize("name", ["llama-2-7b", "gemma-2b", "qwen2-7b", "gpt2", "smollm2-135m"])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_generous_formula_is_above_what_is_traced(
    compose: Callable[..., Config], name: str, kind: str
) -> None:
    subject = subject_of(compose("quant=bf16"), known_config(name), kind, 200)
    assert generous_need(subject) > needed_bytes(plan_memory(subject))


def test_a_model_without_a_causal_head_is_refused_in_words(compose: Callable[..., Config]) -> None:
    subject = subject_of(compose("quant=bf16"), known_config("deberta-v2-xxlarge"), "cuda", 64)
    with pytest.raises(ModelError, match="deberta"):
        plan_memory(subject)


def test_conv1d_in_four_bits_is_refused_in_words(compose: Callable[..., Config]) -> None:
    subject = subject_of(compose("quant=nf4"), known_config("gpt2"), "cuda", 64)
    with pytest.raises(ModelError, match="Conv1D"):
        plan_memory(subject)


def test_limits_come_from_the_configuration_or_from_the_machine(
    compose: Callable[..., Config],
) -> None:
    assert memory_limit(CPU, 8).bytes == 8 * 10**9
    assert memory_limit(CPU, None).bytes > 0
    config = compose()
    config.runtime.memory_limit_gb = 0
    with pytest.raises(ConfigError, match="memory_limit_gb"):
        validate(config)


def test_the_largest_value_within_a_limit_is_set_by_the_steepest_segment() -> None:
    segments = {"flat": (5.0, 0.0), "gentle": (1.0, 1.0), "steep": (0.0, 3.0)}
    assert largest_within(segments, 12) == 4
    assert largest_within(segments, 4) == 0
    assert largest_within({"flat": (5.0, 0.0)}, 6) is None


@pytest.mark.slow
def test_llama_2_7b_is_planned_in_ten_seconds_from_its_configuration_alone(
    project: Layout, tmp_path: Path
) -> None:
    command = Path(sys.executable).parent / "lorascope"
    overrides = ["model=llama2_7b_chat", "quant=nf4", "lora.rank=8", "data=alpaca"]
    batches = ["train.batch_size=1", "train.micro_batch_size=1", "evaluate.batch_size=1"]
    started = time.process_time(), time.monotonic()
    done = subprocess.run(
        [command, "plan", *overrides, *batches],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4.17 GB" in done.stdout
    # Ten seconds on a machine of its own; a shared one is given more.
    assert time.monotonic() - started[1] < 20
