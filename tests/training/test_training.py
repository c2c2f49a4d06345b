"""Training: equal seeds give equal bytes, against plain PEFT, and every way a trial can end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, tokenize_row
from lorascope.errors import LorascopeError
from lorascope.execution import sweep
from lorascope.files.layout import Layout
from lorascope.files.store import read_record
from lorascope.records import Status, TrialRecord
from lorascope.study.declared import declare_trial
from lorascope.training.log import Diverged
from lorascope.training.progress import StepReport, Stopped, ValidationReport
from tests.conftest import BASE_OVERRIDES
from tests.devices import DEVICE, EXACT, LOSS_NATS, assert_same_training
from tests.packs import Interrupted, interrupted_at, plan_for, train_alone


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["fp16", "int8", "nf4", "nf4_dq"])
def test_the_same_seed_twice_gives_the_same_adapter_files(
    project: Layout, compose: Callable[..., Config], tmp_path: Path, mode: str
) -> None:
    config = compose(f"quant={mode}", "lora.dropout=0.1")
    first = train_alone(plan_for(project, config, tmp_path / "a"), DEVICE)
    second = train_alone(plan_for(project, config, tmp_path / "b"), DEVICE)
    assert_same_training(second, first)
    for name in ("adapter_config.json", "adapter_model.safetensors") if EXACT else ():
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    other = train_alone(plan_for(project, replace(config, seed=1), tmp_path / "c"), DEVICE)
    assert other.adapter_sha256 != first.adapter_sha256


def test_the_adapter_loads_in_plain_peft_and_names_no_machine(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    result = train_alone(plan_for(project, compose("quant=fp16"), tmp_path / "a"), DEVICE)
    base = AutoModelForCausalLM.from_pretrained(project.base("small"))
    plain = PeftModel.from_pretrained(base, tmp_path / "a")
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        adapted = plain.eval()(input_ids=ids).logits
        with plain.disable_adapter():
            bare = plain(input_ids=ids).logits
    assert not torch.allclose(adapted, bare, atol=1e-3)
    assert str(tmp_path) not in (tmp_path / "a" / "adapter_config.json").read_text()
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert sum(value.numel() for value in weights.values()) == result.trainable_parameters


def test_trainable_parameters_follow_r_times_in_plus_out(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    config = compose("quant=nf4_dq", "lora.rank=3")
    result = train_alone(plan_for(project, config, tmp_path / "a"), DEVICE)
    a_layer = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)
    assert result.trainable_parameters == 3 * 2 * a_layer
    exact = AutoModelForCausalLM.from_pretrained(project.base("small")).num_parameters()
    assert result.total_parameters == exact + result.trainable_parameters
    # Two moments a parameter in FP32, and one step counter.
    assert result.optimizer_bytes == 8 * result.trainable_parameters + 4


@pytest.mark.gpu
def test_accumulating_gradients_changes_nothing_but_rounding(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    whole = compose("quant=fp16", "train.micro_batch_size=8")
    parts = compose("quant=fp16", "train.micro_batch_size=2")
    at_once = train_alone(plan_for(project, whole, tmp_path / "a"), DEVICE)
    in_parts = train_alone(plan_for(project, parts, tmp_path / "b"), DEVICE)
    gap = abs(at_once.validation_loss_nats - in_parts.validation_loss_nats)
    # Divided twice, gradients would be a quarter of what they are.
    assert gap < (1e-5 if EXACT else LOSS_NATS)
    ours = load_file(tmp_path / "a" / "adapter_model.safetensors")
    theirs = load_file(tmp_path / "b" / "adapter_model.safetensors")
    for name, value in ours.items() if EXACT else ():
        assert torch.allclose(value, theirs[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.gpu
def test_training_lowers_the_loss(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    config = compose("quant=nf4", "train.steps=40", "lora.rank=8")
    result = train_alone(plan_for(project, config, tmp_path / "a"), DEVICE)
    assert result.losses[-1].loss_nats < result.losses[0].loss_nats - 0.5
    assert [point.step for point in result.losses] == list(range(2, 41, 2))
    assert set(result.memory) == {"load", "train", "evaluate"}


@pytest.mark.parametrize(("steps", "points"), [(1, [1]), (5, [2, 4, 5]), (6, [2, 4, 6])])
def test_the_last_step_is_logged_and_tokens_are_those_that_the_steps_read(
    project: Layout, compose: Callable[..., Config], tmp_path: Path, steps: int, points: list[int]
) -> None:
    plan = plan_for(project, compose("quant=fp16", f"train.steps={steps}"), tmp_path / "a")
    result = train_alone(plan, DEVICE)
    assert [point.step for point in result.losses] == points
    # Every toy row has the same seven tokens: five words, the answer, the end.
    tokenizer = load_tokenizer(plan.base)
    lengths = {len(tokenize_row(row, tokenizer)[0]) for row in read_rows(plan.data / "train.jsonl")}
    (length,) = lengths
    assert result.processed_tokens == steps * 8 * length


def test_tokens_are_counted_over_short_last_batches_of_an_epoch(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    config = compose("quant=fp16", "train.steps=null", "train.epochs=1")
    plan = plan_for(project, config, tmp_path / "a")
    rows = read_rows(plan.data / "train.jsonl")
    tokenizer = load_tokenizer(plan.base)
    assert len(rows) % 8 != 0
    expected = sum(len(tokenize_row(row, tokenizer)[0]) for row in rows)
    assert train_alone(plan, DEVICE).processed_tokens == expected


@pytest.mark.gpu
def test_a_loss_that_is_not_finite_is_divergence(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    config = compose("quant=fp16", "train.learning_rate=1e30", "train.max_gradient_norm=1e30")
    with pytest.raises(Diverged):
        train_alone(plan_for(project, config, tmp_path / "a"), DEVICE)


def test_a_trial_is_trained_once_and_then_found(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose("quant=nf4", "seed=11")
    first = sweep.run(config, project)
    assert first.status is Status.completed
    folder = project.trials("nf4") / first.trial
    written = (folder / "record.json").stat().st_mtime_ns
    again = sweep.run(config, project)
    assert again == first
    assert (folder / "record.json").stat().st_mtime_ns == written
    assert "completed already" in capsys.readouterr().out


@pytest.mark.gpu
def test_a_trial_in_a_child_equals_the_same_training_here(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    config = compose("quant=int8", "seed=3")
    record = sweep.run(config, project)
    assert record.result is not None
    here = train_alone(plan_for(project, config, tmp_path / "a"), DEVICE)
    assert_same_training(record.result, here)
    growth = record.result.memory["train"].resident_growth_bytes
    assert growth is not None
    assert growth > 0


def test_divergence_is_a_record_and_not_an_error(
    project: Layout, compose: Callable[..., Config]
) -> None:
    config = compose("quant=fp16", "train.learning_rate=1e30", "train.max_gradient_norm=1e30")
    record = sweep.run(config, project)
    assert record.status is Status.diverged
    assert record.reason
    assert record.result is None
    folder = project.trials("fp16") / record.trial
    assert read_record(folder, TrialRecord) == record


def test_dora_on_an_int8_base_on_a_cpu_is_refused_by_name(
    project: Layout, compose: Callable[..., Config]
) -> None:
    """It fails in bitsandbytes, at the first backward pass and without a word of why."""
    config = compose("quant=int8", "lora.dora=true", "seed=177", "runtime.device=cpu")
    with pytest.raises(LorascopeError, match=r"lora\.dora='true'.*INT8 base on a CPU"):
        sweep.run(config, project)
    assert not list(project.trials("int8").glob("*s177*"))


def test_a_trial_that_takes_too_long_is_a_record_and_is_tried_again(
    project: Layout, compose: Callable[..., Config]
) -> None:
    slow = ("quant=fp16", "seed=5", "train.steps=100000")
    record = sweep.run(compose(*slow, "runtime.trial_timeout_seconds=3"), project)
    assert record.status is Status.timeout
    assert "trial_timeout_seconds=3" in str(record.reason)
    again = sweep.run(compose(*slow, "runtime.trial_timeout_seconds=1"), project)
    assert "trial_timeout_seconds=1" in str(again.reason)
    assert not (project.trials("fp16") / again.trial / "adapter").exists()


def test_identity_ignores_where_a_trial_runs_and_how_things_are_called(
    project: Layout, compose: Callable[..., Config]
) -> None:
    trial = declare_trial(compose("quant=nf4"), project)
    elsewhere = (
        "runtime.threads=1", "runtime.device=cpu", "train.checkpoint_every_steps=3",
        "engine=slurm", "engine.cpus=4",
    )  # fmt: skip
    assert declare_trial(compose("quant=nf4", *elsewhere), project).identity == trial.identity
    for change in ("seed=1", "lora.rank=5", "lora.alpha=9", "train.steps=7", "lora.dropout=0.2"):
        other = declare_trial(compose("quant=nf4", change), project)
        assert other.identity != trial.identity, change


@pytest.mark.gpu
def test_an_interrupted_trial_resumes_and_ends_with_the_same_adapter(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    config = compose("quant=fp16", "train.checkpoint_every_steps=2", "lora.dropout=0.1")
    whole = train_alone(plan_for(project, config, tmp_path / "a"), DEVICE)
    checkpoints = tmp_path / "checkpoints"
    plan = replace(plan_for(project, config, tmp_path / "b"), checkpoints=checkpoints)

    with pytest.raises(Interrupted):
        train_alone(plan, DEVICE, interrupted_at(4))
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-2"]
    resumed = train_alone(plan, DEVICE)
    assert resumed.steps == whole.steps
    assert resumed.resumed_at_step == 2
    assert_same_training(resumed, whole)


@pytest.mark.gpu
def test_a_trial_that_is_asked_to_stop_is_saved_at_that_step_and_goes_on_from_there(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    # Losses are logged every other step: the checkpoint lies within an interval.
    config = compose("quant=fp16", "lora.dropout=0.1")
    whole = train_alone(plan_for(project, config, tmp_path / "a"), DEVICE)
    checkpoints = tmp_path / "checkpoints"
    plan = replace(plan_for(project, config, tmp_path / "b"), checkpoints=checkpoints)
    with pytest.raises(Stopped) as stopped:
        train_alone(
            plan, DEVICE, lambda report: isinstance(report, StepReport) and report.step == 3
        )
    assert (stopped.value.step, stopped.value.steps) == (3, 6)
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-3"]
    resumed = train_alone(plan, DEVICE)
    assert resumed.resumed_at_step == 3
    assert_same_training(resumed, whole)


def test_a_trial_that_is_asked_to_stop_after_its_last_step_ends(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    plan = plan_for(project, compose("quant=fp16"), tmp_path / "a")
    seen: list[StepReport | ValidationReport] = []

    def ask_at_the_end(report: StepReport | ValidationReport) -> bool:
        seen.append(report)
        return not isinstance(report, StepReport) or report.step == report.steps

    assert train_alone(plan, DEVICE, ask_at_the_end).steps == 6
    steps = [report.step for report in seen if isinstance(report, StepReport)]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert seen[-2:] == [ValidationReport(0, 1), ValidationReport(1, 1)]


def test_a_tracking_store_that_fails_costs_no_trial(
    project: Layout, compose: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    config = compose("quant=fp16", "seed=61", "runtime.tracking=true")
    record = sweep.run(config, project)
    assert record.status is Status.completed
    assert "127.0.0.1:9" in record.tracking
    assert read_record(project.trials("fp16") / record.trial, TrialRecord) == record


def test_a_polite_kill_ends_the_child_and_leaves_nothing_half_written(project: Layout) -> None:
    long = ["quant=fp16", "lora.rank=16", "train.steps=1000000", "train.log_every_steps=10"]
    long.append("seed=143")
    process = subprocess.Popen(
        [Path(sys.executable).parent / "lorascope", "train-lora", *BASE_OVERRIDES, *long],
        cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert any("step" in line for line in process.stderr)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=90) == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not [path for path in project.trials("fp16").iterdir() if "-s143-" in path.name]
    # What was asked to stop has saved; other tests of this project expect none.
    assert list(project.checkpoints.rglob("checkpoint-*"))
    shutil.rmtree(project.checkpoints)


def test_adapter_config_is_canonical(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    train_alone(plan_for(project, compose("quant=fp16"), tmp_path / "a"), DEVICE)
    assert sorted(os.listdir(tmp_path / "a")) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == "small"
