"""Files that are cut off, exchanged or pickled: refused by name with a remedy, never loaded, and
nothing that was whole is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.adapters.attach import load_adapter
from lorascope.config import Config
from lorascope.errors import LorascopeError, ModelError, RecordError
from lorascope.execution import sweep
from lorascope.files.layout import RECORD, Layout
from lorascope.files.revisions import canonical_sha256
from lorascope.files.store import read_record, write_record
from lorascope.quantizers.loading import load_base
from lorascope.records import Status, TrialRecord
from lorascope.scoring.evaluation import LoadedBase
from lorascope.stages import (
    evaluate,
    merge,
    prepare_base,
    prepare_data,
    quantize_base,
    report,
)
from lorascope.study.collect import collect
from lorascope.study.declared import declare_trial
from lorascope.study.intact import unprepared
from lorascope.training.progress import StepReport, ValidationReport
from lorascope.training.run import train_pack
from tests.command_line import lorascope
from tests.conftest import BASE_OVERRIDES, TRIAL, compose_one
from tests.devices import CPU
from tests.packs import plan_for, train_alone

OTHER = (*TRIAL, "seed=8")


def files(layout: Layout) -> dict[Path, bytes]:
    """All but the bare base's scores, which may be made anew before an adapter is found damaged."""
    tops = ("data", "models", "experiments", "reports")
    found = [path for top in tops for path in (layout.root / top).rglob("*")]
    return {
        path: path.read_bytes()
        for path in found
        if path.is_file() and not path.parent.name.startswith("base-")
    }


def score_again(config: Config, layout: Layout) -> object:
    """The same scores, made another way."""
    return evaluate.command(
        [replace(config, evaluate=replace(config.evaluate, batch_size=3))], layout
    )[0]


def train_other(config: Config, layout: Layout) -> object:
    return sweep.run(compose_one(layout, *OTHER), layout)


STAGES: dict[str, Callable[[Config, Layout], object]] = {
    "prepare-base": lambda config, layout: prepare_base.command([config], layout),
    "prepare-data": lambda config, layout: prepare_data.command([config], layout),
    "quantize-base": lambda config, layout: quantize_base.command([config], layout),
    "train-lora": sweep.run,
    "train-lora of another": train_other,
    "evaluate": lambda config, layout: evaluate.command([config], layout),
    "evaluate again": score_again,
    "merge": lambda config, layout: merge.command([config], layout),
    "report": lambda config, layout: report.command([config], layout),
}
READ_BY = [
    ("models/raw/small/model.safetensors", ["prepare-base"]),
    ("models/raw/small/config.json", ["prepare-base"]),
    ("data/raw/toy.jsonl", ["prepare-data"]),
    ("models/small/base/record.json", ["prepare-data", "quantize-base", "train-lora", "report"]),
    ("models/small/base/model.safetensors", ["quantize-base"]),
    ("models/small/base/tokenizer.json", ["prepare-data"]),
    ("models/small/nf4/record.json", ["train-lora", "evaluate", "merge", "report"]),
    ("models/small/nf4/model.safetensors", ["train-lora of another", "evaluate again", "merge"]),
    ("models/small/nf4/config.json", ["train-lora of another", "evaluate again", "merge"]),
    ("data/toy/small/record.json", ["train-lora", "evaluate", "merge", "report"]),
    ("data/toy/small/train.jsonl", ["train-lora of another"]),
    ("data/toy/small/validation.jsonl", ["train-lora of another", "evaluate again", "merge"]),
    ("data/toy/small/test.jsonl", ["evaluate again"]),
    ("experiments/train/nf4/nf4-*/record.json", ["train-lora", "evaluate", "merge", "report"]),
    ("experiments/train/nf4/nf4-*/adapter/adapter_model.safetensors", ["evaluate again", "merge"]),
    ("experiments/train/nf4/nf4-*/adapter/adapter_config.json", ["evaluate again", "merge"]),
    ("experiments/evaluate/nf4/nf4-*/record.json", ["evaluate", "merge", "report"]),
    ("experiments/evaluate/nf4/nf4-*/test.jsonl", ["merge", "report"]),
    ("experiments/evaluate/nf4/nf4-*/test_distributions.npy", ["merge", "report"]),
    ("models/small/merged/record.json", ["report"]),
]  # fmt: skip
"""Path -> stages that read it."""


@pytest.mark.parametrize(("pattern", "stages"), READ_BY)
def test_a_file_that_is_cut_off_is_named_with_what_to_do_and_all_else_stays(
    study: Layout, pattern: str, stages: list[str]
) -> None:
    (path,) = study.root.glob(pattern)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    config = compose_one(study, *TRIAL)
    before = files(study)
    for stage in stages:
        LoadedBase.key = None
        with pytest.raises(LorascopeError) as caught:
            STAGES[stage](config, study)
        told = str(caught.value)
        # A folder's digest does not say which of its files it was.
        assert path.name in told or str(path.parent) in told, f"{stage}: {told}"
        assert "again" in told or "repair" in told, f"{stage}: {told}"
        assert files(study) == before, stage


def test_lines_that_are_missing_are_seen_although_each_line_is_whole(study: Layout) -> None:
    rows = study.data("small", "toy") / "train.jsonl"
    rows.write_bytes(b"".join(rows.read_bytes().splitlines(keepends=True)[:-3]))
    with pytest.raises(RecordError, match=r"train\.jsonl: damaged or exchanged.*prepare-data"):
        train_other(compose_one(study, *TRIAL), study)


def test_a_missing_shard_is_named_before_anything_is_copied(study: Layout) -> None:
    raw = study.root / "models/raw/small"
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (raw / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"lacks model-2\.safetensors.*again"):
        prepare_base.command([compose_one(study, *TRIAL)], study)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "arguments"),
    [
        ("models/small/nf4/model.safetensors", ["train-lora", "seed=8"]),
        ("data/raw/toy.jsonl", ["prepare-data"]),
    ],
)  # fmt: skip
def test_the_command_line_shows_a_sentence_and_no_stack(
    study: Layout, pattern: str, arguments: list[str]
) -> None:
    (path,) = study.root.glob(pattern)
    path.write_bytes(path.read_bytes()[:-30])
    stage, *more = arguments
    done = lorascope(study, stage, *BASE_OVERRIDES, *TRIAL, *more)
    assert done.returncode == 2, done.stderr
    assert "lorascope: error: " in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def cut(name: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        path = checkpoint / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def flipped(checkpoint: Path) -> None:
    """It still loads: one weight is another."""
    path = checkpoint / "pack.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x40
    path.write_bytes(content)


DAMAGES = [
    cut("pack.safetensors"), cut("pack.json"), cut("sha256"), flipped,
    lambda checkpoint: (checkpoint / "sha256").unlink(),
    lambda checkpoint: (checkpoint / "pack.json").unlink(),
]  # fmt: skip


@pytest.fixture(scope="module")
def two_checkpoints(project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of steps 2 and 4 of six: the folder as a kill between saving and deleting leaves it."""
    top = tmp_path_factory.mktemp("checkpoints")
    kept = top / "kept"

    def stop_after_four(now: StepReport | ValidationReport) -> bool:
        for path in (top / "live").glob("checkpoint-*"):
            shutil.copytree(path, kept / path.name, dirs_exist_ok=True)
        if (kept / "checkpoint-4").exists():
            raise KeyboardInterrupt
        return False

    plan = plan_for(project, compose_one(project, *CHECKPOINTED), top / "adapter")
    with pytest.raises(KeyboardInterrupt):
        train_pack(replace(plan, checkpoints=top / "live"), CPU, stop_after_four)
    return kept


CHECKPOINTED = ("quant=fp16", "train.checkpoint_every_steps=2", "train.log_every_steps=1")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_then_the_start(
    project: Layout, two_checkpoints: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    config = compose_one(project, *CHECKPOINTED)
    whole = train_alone(plan_for(project, config, tmp_path / "whole"))
    for damaged, resumed_at in (([4], 2), ([2, 4], 0)):
        folder = tmp_path / f"from {resumed_at}"
        shutil.copytree(two_checkpoints, folder)
        for step in damaged:
            damage(folder / f"checkpoint-{step}")
        plan = replace(plan_for(project, config, tmp_path / "adapter"), checkpoints=folder)
        result = train_alone(plan)
        assert result.resumed_at_step == resumed_at
        assert result.adapter_sha256 == whole.adapter_sha256


def test_a_sweep_tells_of_a_damaged_checkpoint_and_ends_well(
    study: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose_one(study, *OTHER, "train.checkpoint_every_steps=2")
    identity = declare_trial(config, study).identity
    folder = study.checkpoints / identity / canonical_sha256([identity])
    for name in ("checkpoint-4", "checkpoint-of mine"):
        (folder / name).mkdir(parents=True)
        (folder / name / "pack.json").write_text("{")
    record = sweep.run(config, study)
    assert (record.status, record.result and record.result.resumed_at_step) == ("completed", 0)
    told = capsys.readouterr().err
    assert f"{folder / 'checkpoint-4'} is damaged and passed over" in told
    assert "from the start" in told


def another_base(folder: Path) -> None:
    """Exchange the weights in `folder` for others of the same shapes."""
    path = folder / "model.safetensors"
    save_file({n: t + 0.01 for n, t in load_file(path).items()}, path, metadata={"format": "pt"})


def test_trials_of_a_former_base_behind_the_same_name_are_not_todays(study: Layout) -> None:
    config = compose_one(study, *TRIAL)
    former = declare_trial(config, study)
    shutil.copytree(study.root / "models", study.root / "former")
    another_base(study.root / "models/raw/small")
    prepare_base.command([config], study)
    with pytest.raises(RecordError, match=r"nf4: made from another base.*quantize-base"):
        declare_trial(config, study)
    (missing,) = unprepared([config], study, [*BASE_OVERRIDES, *TRIAL])
    assert missing.command.startswith("lorascope quantize-base model=small quant=nf4")
    quantize_base.command([config], study)
    assert declare_trial(config, study).identity != former.identity
    with pytest.raises(RecordError, match="not trained"):
        evaluate.command([config], study)
    found = collect([config], study)
    assert not found.trials
    assert former.name not in {evaluation.name for evaluation in found.evaluations}
    shutil.rmtree(study.root / "models")
    (study.root / "former").rename(study.root / "models")
    assert sweep.run(config, study).trial == former.name
    assert [trial.trial for trial in collect([config], study).trials] == [former.name]


def test_weights_exchanged_beneath_their_record_are_refused(study: Layout) -> None:
    config = compose_one(study, "quant=fp16", "lora.rank=4")
    sweep.run(config, study)
    another_base(study.quantized("small", "fp16"))
    for run in (evaluate.command, lambda cs, _: sweep.run(replace(cs[0], seed=8), study)):
        with pytest.raises(RecordError, match=r"fp16: damaged or exchanged.*quantize-base"):
            run([config], study)


def test_an_adapter_of_another_trial_is_refused(study: Layout) -> None:
    config, other = compose_one(study, *TRIAL), compose_one(study, *OTHER)
    sweep.run(other, study)
    ours, theirs = (
        study.trials("nf4") / declare_trial(c, study).name / "adapter" for c in (config, other)
    )
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    with pytest.raises(RecordError, match=r"adapter: damaged or exchanged.*train-lora"):
        merge.command([config], study)


class Malicious:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What appears when a pickle of `Malicious` is loaded."""
    marker = tmp_path / "loaded"
    torch.save(Malicious(marker), tmp_path / "malicious")
    torch.load(tmp_path / "malicious", weights_only=False)
    marker.rmdir()
    return marker


def test_pickled_weights_of_base_and_adapter_are_never_loaded(study: Layout, marker: Path) -> None:
    config = compose_one(study, *TRIAL)
    stored = study.quantized("small", "nf4")
    (adapter,) = study.trials("nf4").glob("nf4-*/adapter")
    bare = load_base(stored, config.quant, CPU)
    for folder, name in (
        (study.root / "models/raw/small", "pytorch_model.bin"),
        (study.base("small"), "pytorch_model.bin"),
        (stored, "pytorch_model.bin"),
        (adapter, "adapter_model.bin"),
    ):
        for weights in folder.glob("*.safetensors"):
            weights.unlink()
        shutil.copyfile(marker.with_name("malicious"), folder / name)
    for stage in (
        "prepare-base",
        "quantize-base",
        "train-lora of another",
        "evaluate again",
        "merge",
    ):
        LoadedBase.key = None
        with pytest.raises(LorascopeError, match="again"):
            STAGES[stage](config, study)
    with pytest.raises(ModelError, match=r"lacks adapter_model\.safetensors.*can run code"):
        load_adapter(bare, adapter)
    with pytest.raises(OSError, match="safetensors"):
        load_base(stored, config.quant, CPU)
    assert not marker.exists()


def test_pickles_beside_a_checkpoint_are_not_loaded(
    project: Layout, two_checkpoints: Path, marker: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_checkpoints, folder)
    for name in (
        "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth",
        "training_args.bin", "pytorch_model.bin", "adapter_model.bin",
    ):  # fmt: skip
        shutil.copyfile(marker.with_name("malicious"), folder / "checkpoint-4" / name)
    plan = plan_for(project, compose_one(project, *CHECKPOINTED), tmp_path / "adapter")
    assert train_alone(replace(plan, checkpoints=folder)).resumed_at_step == 4
    assert not marker.exists()


def test_stages_that_replace_outputs_leave_the_caches_hard_links_alone(
    study: Layout, tmp_path: Path
) -> None:
    """DVC links outputs to its cache: what writes into a file writes into the cache."""
    config = compose_one(study, *TRIAL)
    another_base(study.root / "models/raw/small")
    (study.root / "data/raw/toy.jsonl").write_text(
        "".join((study.root / "data/raw/toy.jsonl").read_text().splitlines(keepends=True)[:80])
    )
    outputs = {path: content for path, content in files(study).items() if "raw" not in path.parts}
    cache = tmp_path / "cache"
    for path in outputs:
        linked = cache / path.relative_to(study.root)
        linked.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, linked)
    (trial,) = study.trials("nf4").iterdir()
    write_record(trial, replace(read_record(trial, TrialRecord), status=Status.killed))
    sweep.run(config, study)
    score_again(config, study)
    prepare_base.command([config], study)
    prepare_data.command([config], study)
    quantize_base.command([config], study)
    sweep.run(config, study)
    evaluate.command([config], study)
    merge.command([config], study)
    report.command([config], study)
    for path, content in outputs.items():
        assert (cache / path.relative_to(study.root)).read_bytes() == content, path
    replaced = [path for path in outputs if not path.samefile(cache / path.relative_to(study.root))]
    tops = {path.relative_to(study.root).parts[0] for path in replaced}
    assert tops == {"data", "models", "experiments", "reports"}
    assert trial / RECORD in replaced
