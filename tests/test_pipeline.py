"""The whole study through DVC, on a small project in a folder with a space in its name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.execution import sweep as sweeps
from lorascope.files.layout import Layout
from lorascope.stages import prepare_base, prepare_data, quantize_base
from tests.command_line import lorascope
from tests.conftest import REPOSITORY, SHARED, compose_one, make_project, save_small_model

pytestmark = pytest.mark.slow


def run(layout: Layout, *command: str) -> str:
    """What a command prints, with the tools of this environment first in PATH."""
    tools = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": tools + os.pathsep + os.environ["PATH"]}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        command, cwd=layout.root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_study_runs_does_nothing_twice_and_trains_only_an_added_rank(tmp_path: Path) -> None:
    root = tmp_path / "a study"
    root.mkdir()
    layout = make_project(root)
    save_small_model(root / "models/raw/small")
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(REPOSITORY / name, root / name)
    # The code is the installed one; DVC wants to see its files where dvc.yaml names them.
    (root / "src").symlink_to(REPOSITORY / "src")
    run(layout, "git", "init", "--quiet")
    run(layout, "dvc", "init", "--quiet")
    first = run(layout, "dvc", "repro")
    assert len(re.findall(r"trainable, ", first)) == 4
    for name in ("report.md", "accuracy.csv", "memory.csv", "trainable_parameters.csv"):
        assert (layout.reports / name).is_file()
    # Six steps are not shown to beat the bare base: the run ends well and ships nothing.
    merged = root / "models/small/merged"
    assert [path.name for path in merged.iterdir()] == ["nothing_shipped.txt"]
    assert "No adapter is shown to beat the bare base" in (layout.reports / "report.md").read_text()
    assert "up to date" in run(layout, "dvc", "repro")
    report = (layout.reports / "report.md").read_bytes()
    assert lorascope(layout, "report").returncode == 0
    assert (layout.reports / "report.md").read_bytes() == report
    asked = layout.params.read_text().replace('"2,4"', '"2,4,6"').replace("[fp16, nf4]", "[nf4]")
    layout.params.write_text(asked.replace("ship: auto", "ship: nf4-r0006-a0008-s0-"))
    again = run(layout, "dvc", "repro")
    trained = re.findall(r"^(\S+): validation loss", again, re.MULTILINE)
    assert [name.partition("-s0")[0] for name in trained] == ["nf4-r0006-a0008"]
    assert (layout.reports / "accuracy.csv").read_text().count("completed") == 3
    assert (merged / "model.safetensors").is_file()
    assert not (merged / "nothing_shipped.txt").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not beside the project")
def test_a_real_model_learns_real_sentences(tmp_path: Path) -> None:
    """A small part of E2E on TinyStories-656K: completion loss falls by more than 1.5 nats."""
    layout = make_project(tmp_path)
    shutil.copytree(SHARED / "data/e2e-nlg", layout.root / "data/raw/e2e-nlg")
    shutil.copytree(SHARED / "models/tinystories-656k", layout.root / "models/raw/tinystories-656k")
    config = compose_one(
        layout, "quant=nf4_dq", "model=tinystories", "data=e2e_nlg", "train=brief",
        "train.steps=30", "train.batch_size=16", "train.micro_batch_size=16",
        "train.learning_rate=1e-2", "data.max_validation_rows=48", "data.max_test_rows=16",
    )  # fmt: skip
    prepare_base.command([config], layout)
    prepare_data.command([config], layout)
    quantize_base.command([config], layout)
    record = sweeps.run(config, layout)
    assert record.result is not None
    assert record.result.validation_loss_nats < _bare_loss(layout, config) - 1.5


def _bare_loss(layout: Layout, config: Config) -> float:
    from lorascope.data.tokenization import load_tokenizer
    from lorascope.machine.devices import Device
    from lorascope.objectives.completion import completion_loss
    from lorascope.quantizers.loading import load_base

    folder = layout.quantized(config.model.name, config.quant.name)
    rows = read_rows(layout.data(config.model.name, config.data.name) / "validation.jsonl")
    base = load_base(folder, config.quant, Device("cpu", "cpu"))
    total, tokens = completion_loss(base, load_tokenizer(folder), rows, batch_size=16)
    return total / tokens


def test_a_plain_multirun_beside_dvc_shares_its_trials(
    project: Layout, compose: Callable[..., Config]
) -> None:
    sweep = ("model=small", "data=toy", "train=few", "runtime.tracking=false", "seed=77")
    first = lorascope(project, "train-lora", "-m", *sweep, "quant=nf4,int8", "lora.rank=1,3")
    assert first.stdout.count("trainable, ") == 4, first.stderr
    second = lorascope(project, "train-lora", "-m", *sweep, "quant=nf4", "lora.rank=1,3,5")
    assert "2 trials are there already" in second.stdout + second.stderr
    assert second.stdout.count("trainable, ") == 1
