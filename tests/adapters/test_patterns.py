"""Ranks and alphas by layer: counted, trained and saved as PEFT's patterns have them."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

from lorascope.adapters.layers import model_parts
from lorascope.adapters.lora.kind import LORA, LoraConfig
from lorascope.adapters.targets import select
from lorascope.config import Config
from lorascope.errors import ConfigError, LorascopeError
from lorascope.execution import sweep
from lorascope.files.layout import Layout
from lorascope.quantizers.loading import load_base
from lorascope.records import Status, TrainingResult
from lorascope.scoring.evaluation import LoadedBase
from lorascope.stages import evaluate, merge, report
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand
from lorascope.training.run import train_pack
from tests.conftest import BASE_OVERRIDES, run_command
from tests.counting.architecture_cases import config_values, meta_model, peft_count
from tests.devices import CPU
from tests.packs import (
    Interrupted,
    bare_losses,
    interrupted_at,
    pack_plan,
    plan_for,
    train_alone,
)
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]
RANKS = {"down_proj": 24, "layers.0.self_attn.(q|v)_proj": 2}
ALPHAS = {"mlp.*": 4.0}
TARGETS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def patterned(config: Config, **settings: object) -> Config:
    """With ranks and alphas by layer."""
    values = {"rank_pattern": RANKS, "alpha_pattern": ALPHAS, **settings}
    return replace(config, adapter=replace(config.adapter, **values))  # type: ignore[arg-type]


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(
    ("case", "ranks"),
    [("llama", RANKS), ("gpt2", {"c_fc": 1, r"h\.1\.attn.c_attn": 7, "h.0.*c_proj": 9})],
)
def test_the_count_is_pefts(case: str, ranks: dict[str, int], dora: bool) -> None:
    values, config = config_values(case), LoraConfig(rank=4, dora=dora, rank_pattern=ranks)
    parts = model_parts(meta_model(values))
    chosen = select(parts, config)
    assert LORA.parameters(config, chosen) == peft_count(values, LORA.peft(config, parts, chosen))
    assert LORA.parameters(config, chosen) != LORA.parameters(LoraConfig(rank=4, dora=dora), chosen)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fp16", {}),
        ("nf4", {"dora": True}),
        ("int8", {"rslora": True}),
        ("fp16", {"init": "pissa"}),
    ],
    ids=["fp16", "nf4-dora", "int8-rslora", "fp16-pissa"],
)
def test_training_follows_a_bare_trainer_with_peft(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, words: dict[str, object]
) -> None:
    config = patterned(
        compose(
            f"quant={mode}", "lora.rank=4", "lora.alpha=8", "train.steps=12", "seed=3",
            "train.micro_batch_size=4", "train.log_every_steps=1", "train.weight_decay=0.01",
        ),
        **words,
    )  # fmt: skip
    ours = train_alone(plan_for(project, config, tmp_path / "ours"))
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    torch.manual_seed(3)
    adapter = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM", rank_pattern=RANKS,
        alpha_pattern=ALPHAS, use_dora="dora" in words, use_rslora="rslora" in words,
        init_lora_weights=words.get("init", True),
    )  # fmt: skip
    bare = peft.get_peft_model(base, adapter)
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=1e-5)
    assert ours.trainable_parameters == bare.get_nb_trainable_parameters()[0]
    if "init" in words:
        return
    bare.save_pretrained(tmp_path / "bare")
    saved, theirs = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "bare")
    )
    assert saved.keys() == theirs.keys()
    # AdamW makes a whole step of a gradient near its epsilon, whose rounding then shows.
    gaps = torch.cat([(saved[name] - theirs[name]).abs().flatten() for name in theirs])
    assert (gaps > 1e-5).float().mean() < 1e-3
    assert gaps.max() < 1e-4


@pytest.mark.usefixtures("one_thread")
def test_packed_and_resumed_it_computes_what_it_computes_alone(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    shared = ("quant=fp16", "train.checkpoint_every_steps=2", "train.steps=6")
    configs = [
        patterned(compose(*shared, "lora.rank=4", "lora.b_rate_ratio=4")),
        patterned(compose(*shared, "lora.rank=12", "seed=1"), alpha_pattern={}),
        patterned(compose(*shared, "lora.rank=4", "seed=2", "lora.dropout=0.1")),
    ]
    folders = [tmp_path / str(index) for index in range(len(configs))]
    plan = replace(pack_plan(project, configs, folders), checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Interrupted):
        train_pack(plan, CPU, interrupted_at(3))
    for config, packed in zip(configs, train_pack(plan, CPU), strict=True):
        assert isinstance(packed, TrainingResult)
        assert packed.resumed_at_step == 2
        alone = train_alone(plan_for(project, config, tmp_path / "alone"))
        assert packed.losses == alone.losses
        assert packed.adapter_sha256 == alone.adapter_sha256


@pytest.mark.parametrize("ranks", [(8,), (1, 16)])
def test_the_memory_plan_is_what_training_needs(
    project: Layout, compose: Compose, tmp_path: Path, ranks: tuple[int, ...]
) -> None:
    configs = [
        patterned(compose("quant=nf4", f"lora.rank={rank}", "train.steps=3")) for rank in ranks
    ]
    plan = pack_plan(project, configs, [tmp_path / str(rank) for rank in ranks])
    result, predicted = trained_and_predicted(plan)
    for phase in ("train", "evaluate"):
        measured = result.memory[phase].tracked_peak_bytes
        assert predicted.peak_bytes[phase] == pytest.approx(measured, rel=0.001), phase
    if ranks == (8,):
        assert_close(result, replace(predicted, optimizer_bytes=result.optimizer_bytes))


def test_a_study_of_patterns_is_trained_scored_merged_and_reported(
    project: Layout, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "a project")
    shutil.copytree(project.root, layout.root)
    shutil.rmtree(layout.root / "experiments", ignore_errors=True)
    (layout.conf / "lora/wide_mlp.yaml").write_text(
        "targets: all_linear\nrank_pattern: {down_proj: 12}\n"
    )
    words = [*BASE_OVERRIDES, "quant=nf4", "lora.rank=4"]
    points = expand(layout, [*words, "lora=wide_mlp,all_linear"])
    written = expand(layout, [*words, "lora.rank_pattern={down_proj:12}"])
    assert written[0].adapter == points[0].adapter
    swept = expand(layout, [*words, "lora.rank_pattern={down_proj:12},{layers.0.*q_proj:2}"])
    assert [point.adapter.rank_pattern for point in swept] == [  # type: ignore[attr-defined]
        {"down_proj": 12}, {"layers.0.*q_proj": 2},
    ]  # fmt: skip
    LoadedBase.key = None
    records = [sweep.run(point, layout) for point in points]
    assert [record.status for record in records] == [Status.completed] * 2
    for point in points:
        evaluate.command([point], layout)
    shipped = [replace(point, ship=records[0].trial) for point in points]
    merged = merge.command(shipped, layout)
    assert merged is not None
    assert merged.passed
    report.command(points, layout)
    with (layout.root / "reports/accuracy.csv").open() as file:
        rows = {row["trial"]: row for row in csv.DictReader(file) if row["trial"]}
    wide, usual = (rows[record.trial] for record in records)
    assert (wide["variant"], usual["variant"]) == (
        "rank_pattern={'down_proj': 12}", "rank_pattern={}",
    )  # fmt: skip
    assert int(wide["trainable_parameters"]) > int(usual["trainable_parameters"])


def test_plans_and_counts_tell_patterns_apart(
    project: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*BASE_OVERRIDES, "quant=nf4", "lora.rank=4", "lora.rank_pattern={down_proj:8},{}"]
    run_command(project, "plan", *words, "runtime.device=cpu")
    header, *lines = capsys.readouterr().out.splitlines()[1:]
    assert "Rank pattern" in header
    assert ["down_proj: 8" in line for line in lines[:2]] == [True, False]
    run_command(project, "count", *words, "--ranks", "4")
    told = capsys.readouterr().out
    assert "LoRA on all_linear, down_proj at rank 8: " in told
    assert "LoRA on all_linear: " in told


REFUSED = (
    ({"rank_pattern": {"down": 3}}, "lora.rank_pattern='down': matches no layer .*q_proj"),
    ({"alpha_pattern": {"mlp.*": 1.0, "down_proj": 2.0}}, "matches all of them"),
)


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_patterns_that_cannot_hold_are_refused_before_a_trial_starts(
    project: Layout, compose: Compose, settings: dict[str, object], message: str
) -> None:
    config = patterned(compose("quant=fp16"), **settings)
    with pytest.raises(ConfigError, match=message):
        declare_trial(config, project)


@pytest.mark.parametrize(
    "override",
    ["lora.rank_pattern={down_proj:0}", "lora.rank_pattern={down_proj:1.5}",
     "lora.alpha_pattern={down_proj:-1}", "lora.rank_pattern={+:4}"],
)  # fmt: skip
def test_values_out_of_bounds_are_refused(project: Layout, override: str) -> None:
    with pytest.raises(LorascopeError, match="_pattern"):
        expand(project, [*BASE_OVERRIDES, "quant=nf4", override])
