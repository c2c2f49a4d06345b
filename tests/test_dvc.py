"""The wiring: every stage's deps name the code it runs and the files that its command selects."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorascope.comparing.findings import compare
from lorascope.identity import computing_modules, imported_modules, module_file
from lorascope.layout import Layout
from lorascope.reporting.write import report_files
from lorascope.stages.grid import PARAMETER_KEYS
from tests.conftest import REPOSITORY
from tests.study_factory import example_study

WIRING: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
STAGES: dict[str, Any] = WIRING["stages"]
NAMES = ("NAME", "EMAIL")


def deps(stage: str) -> list[str]:
    return list(STAGES[stage]["deps"])


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_the_code_that_the_stage_runs(stage: str) -> None:
    module = f"lorascope.stages.{stage.replace('-', '_')}"
    needed = computing_modules(module)
    named = [REPOSITORY / dep for dep in deps(stage) if dep.startswith("src/")]
    missing = [
        str(module_file(name).relative_to(REPOSITORY))
        for name in sorted(needed)
        if not any(module_file(name).is_relative_to(dep) for dep in named)
    ]
    assert not missing, f"{stage}: add to deps in dvc.yaml"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_that_are_code_are_run(stage: str) -> None:
    module = f"lorascope.stages.{stage.replace('-', '_')}"
    files = {module_file(name) for name in imported_modules(module)}
    for dep in deps(stage):
        if dep.startswith("src/"):
            assert any(path.is_relative_to(REPOSITORY / dep) for path in files), dep


@pytest.mark.parametrize("stage", STAGES)
def test_each_group_that_a_command_selects_is_a_dep(stage: str) -> None:
    groups = {path.name for path in (REPOSITORY / "conf").iterdir() if path.is_dir()}
    for word in shlex.split(STAGES[stage]["cmd"]):
        group, selects, choice = word.partition("=")
        if selects and group in groups:
            assert f"conf/{group}/{choice}.yaml" in deps(stage)


def test_every_report_is_an_output() -> None:
    stage = STAGES["report"]
    listed = [*stage["outs"], *stage["metrics"], *stage["plots"]]
    names = {Path(next(iter(entry))).name for entry in listed}
    study = example_study()
    assert names == set(report_files(study, compare(study)))
    assert all(next(iter(entry.values()))["cache"] is False for entry in listed)


def test_grid_stages_depend_on_every_parameter() -> None:
    top = {key.partition(".")[0] for key in PARAMETER_KEYS}
    for stage in ("check", "merge", "report"):
        assert set(STAGES[stage]["params"]) == top


def test_commands_hold_no_shell_logic() -> None:
    for stage in STAGES.values():
        assert not re.search(r"[;&|<>`]|\$\(", stage["cmd"])


def test_trials_persist_between_runs() -> None:
    for stage in ("train-lora", "evaluate"):
        (out,) = STAGES[stage]["outs"]
        assert next(iter(out.values())) == {"cache": False, "persist": True}


def test_layout_agrees_with_the_wiring() -> None:
    layout = Layout(Path("/p"))
    assert layout.base("m") == Path("/p/models/m/base")
    assert layout.data("m", "d") == Path("/p/data/d/m")
    assert "models/${model}/base" in STAGES["prepare-base"]["outs"]
    assert "data/${data}/${model}" in STAGES["prepare-data"]["outs"]


def test_an_experiment_over_fewer_modes_leaves_the_trials_of_the_others(tmp_path: Path) -> None:
    """DVC's checkout removes linked outputs that the graph at hand does not name."""
    (out,) = STAGES["train-lora"]["outs"]
    options = next(iter(out.values()))
    stage = {"matrix": {"quant": "${quant}"}, "outs": [{"out/${item.quant}": options}]}
    stage["cmd"] = "mkdir -p out/${item.quant} && touch out/${item.quant}/rank-${rank}"
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    (tmp_path / "params.yaml").write_text("quant: [a, b]\nrank: 1\n")
    (tmp_path / ".gitignore").write_text("/out/\n")
    tools = str(Path(sys.executable).parent)
    person = {f"GIT_{role}_{part}": "x" for role in ("AUTHOR", "COMMITTER") for part in NAMES}
    environment = {**os.environ, **person, "PATH": tools + os.pathsep + os.environ["PATH"]}
    for command in (
        "git init -q", "dvc init -q", "dvc repro -q", "git add -A", "git commit -qm first",
        "dvc exp run -q -S quant=[b] -S rank=2",
    ):  # fmt: skip
        subprocess.run(shlex.split(command), cwd=tmp_path, env=environment, check=True)
    assert [path.name for path in (tmp_path / "out/a").iterdir()] == ["rank-1"]
    assert len(list((tmp_path / "out/b").iterdir())) == 2
