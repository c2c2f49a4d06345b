"""The wiring: every stage's deps name the code it runs and the files that its command selects."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout, find_layout
from lorascope.reporting.catalogue import FILES
from lorascope.study.params import PARAMETER_KEYS
from tests.conftest import REPOSITORY
from tests.imports import reached, room

WIRING: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
STAGES: dict[str, Any] = WIRING["stages"]
NAMES = ("NAME", "EMAIL")
SOURCE = "src/lorascope/"
UNWATCHED = {"", "config", "errors", "files", "records"}
"""Rooms that name, check and keep things, but make none of them."""


def deps(stage: str) -> list[str]:
    return list(STAGES[stage]["deps"])


def code_run_by(stage: str) -> set[str]:
    """Rooms, and of the stages the files, that hold the code of a stage, as deps name them."""
    found = reached(f"lorascope.stages.{stage.replace('-', '_')}") - {"lorascope.stages"}
    files = {f"stages/{name.split('.')[-1]}.py" for name in found if room(name) == "stages"}
    return files | {room(name) for name in found} - UNWATCHED - {"stages"}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_the_rooms_whose_code_the_stage_runs(stage: str) -> None:
    named = {dep.removeprefix(SOURCE) for dep in deps(stage) if dep.startswith(SOURCE)}
    assert named == code_run_by(stage), f"{stage}: correct its deps in dvc.yaml"
    # It trains, scores and compares.
    assert len(named) <= 16 or stage == "settle"


@pytest.mark.parametrize("stage", STAGES)
def test_each_group_that_a_command_selects_is_a_dep(stage: str) -> None:
    groups = {path.name for path in (REPOSITORY / "conf").iterdir() if path.is_dir()}
    for word in shlex.split(STAGES[stage]["cmd"]):
        group, selects, choice = word.partition("=")
        if selects and group in groups:
            assert f"conf/{group}/{choice}.yaml" in deps(stage)


def test_dvc_finds_one_pipeline() -> None:
    """DVC takes every file of that name for one, in the templates of a package too."""
    folders = (folder for folder in REPOSITORY.iterdir() if not folder.name.startswith("."))
    assert not [path for folder in folders if folder.is_dir() for path in folder.rglob("dvc.yaml")]


def test_outs_of_report_are_the_files_of_the_catalogue() -> None:
    stage = STAGES["report"]
    listed = [*stage["outs"], *stage["metrics"], *stage["plots"]]
    names = [Path(next(iter(entry))).name for entry in listed]
    assert sorted(names) == sorted(FILES), "list the catalogue's files in dvc.yaml"
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


def environment() -> dict[str, str]:
    """With the tools of this environment, and somebody who commits."""
    tools = str(Path(sys.executable).parent)
    person = {f"GIT_{role}_{part}": "x" for role in ("AUTHOR", "COMMITTER") for part in NAMES}
    return {**os.environ, **person, "PATH": tools + os.pathsep + os.environ["PATH"]}


def run_all(folder: Path, *commands: str) -> None:
    for command in commands:
        subprocess.run(shlex.split(command), cwd=folder, env=environment(), check=True)


def test_a_remote_carries_trials_to_another_clone(recorded: Layout, tmp_path: Path) -> None:
    ours, theirs = recorded.root, tmp_path / "theirs"
    for name in ("Makefile", ".gitignore"):
        shutil.copy(REPOSITORY / name, ours)
    remote = shlex.quote(str(tmp_path / "remote"))
    run_all(
        ours, "git init -q", "dvc init -q", f"dvc remote add -q -d shared {remote}",
        "make -s push-trials", "git add .", "git commit -qm first",
        f"git clone -q . {shlex.quote(str(theirs))}",
    )  # fmt: skip
    there = Layout(theirs)
    (kept, *_) = recorded.trials("fp16").iterdir()
    written = there.trials("fp16") / kept.name / "record.json"
    written.parent.mkdir(parents=True)
    written.write_text("trained here")
    run_all(theirs, "make -s pull-trials")
    for place in (recorded.trials("fp16").parent, recorded.evaluations("fp16").parent):
        for path in place.rglob("*.*"):
            copy = theirs / path.relative_to(ours)
            if path.is_file() and copy != written:
                assert copy.read_bytes() == path.read_bytes()
                assert not copy.is_symlink()
                assert copy.stat().st_mode & 0o200
    assert written.read_text() == "trained here"
    assert not subprocess.check_output(["git", "status", "--porcelain"], cwd=theirs)


def test_a_copy_that_dvc_deletes_is_refused(recorded: Layout) -> None:
    """As `dvc exp run --temp` makes it: all that is trained in it would go with it."""
    copy = recorded.root / ".dvc" / "tmp" / "exps" / "standalone" / "temp1234"
    shutil.copytree(recorded.root / "conf", copy / "conf")
    shutil.copy(recorded.params, copy)
    with pytest.raises(LorascopeError, match=r"DVC deletes after the run.*without --temp"):
        find_layout(copy / "conf")
    assert find_layout(recorded.root / ".dvc" / "tmp").root == recorded.root


def test_an_experiment_over_fewer_modes_leaves_the_trials_of_the_others(tmp_path: Path) -> None:
    """DVC's checkout removes linked outputs that the graph at hand does not name."""
    (out,) = STAGES["train-lora"]["outs"]
    options = next(iter(out.values()))
    stage = {"matrix": {"quant": "${quant}"}, "outs": [{"out/${item.quant}": options}]}
    stage["cmd"] = "mkdir -p out/${item.quant} && touch out/${item.quant}/rank-${rank}"
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    (tmp_path / "params.yaml").write_text("quant: [a, b]\nrank: 1\n")
    (tmp_path / ".gitignore").write_text("/out/\n")
    run_all(
        tmp_path, "git init -q", "dvc init -q", "dvc repro -q", "git add -A",
        "git commit -qm first", "dvc exp run -q -S quant=[b] -S rank=2",
    )  # fmt: skip
    assert [path.name for path in (tmp_path / "out/a").iterdir()] == ["rank-1"]
    assert len(list((tmp_path / "out/b").iterdir())) == 2
