"""dvc.yaml of a study outside a clone: the repository's stages, with revisions for sources."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorascope.files.layout import VOCABULARY, Layout
from lorascope.files.revisions import RAISED
from lorascope.starting.wiring import INVENTORY, project_wiring, write_inventory
from tests.conftest import REPOSITORY
from tests.test_dvc import environment

OURS: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
THEIRS: dict[str, Any] = yaml.safe_load(project_wiring((REPOSITORY / "dvc.yaml").read_text()))[
    "stages"
]


@pytest.mark.parametrize("stage", OURS)
def test_a_stage_of_a_project_is_that_of_the_repository_but_for_sources(stage: str) -> None:
    ours, theirs = dict(OURS[stage]), dict(THEIRS[stage])
    before, after = ours.pop("deps"), theirs.pop("deps")
    assert theirs == ours
    rooms = {dep.removeprefix("src/lorascope/") for dep in before if dep.startswith("src/")}
    revisions = {f"{INVENTORY}/revisions/{room}.json" for room in rooms & RAISED.keys()}
    conf = {f"{INVENTORY}/{dep}" for dep in before if dep.startswith("conf")}
    others = {dep for dep in before if not dep.startswith(("conf", "src/"))}
    judged = {f"{INVENTORY}/version.json"} if "params" in ours else set()
    assert set(after) == revisions | conf | others | judged
    assert len(after) == len(set(after))


def test_the_inventory_holds_own_choices_before_those_of_the_package(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for name in ("brief", "mine"):
        (layout.conf / "train").mkdir(parents=True, exist_ok=True)
        (layout.conf / f"train/{name}.yaml").write_text(f"name: {name}\nsteps: 3\n")
    write_inventory(layout)
    (layout.conf / "train/mine.yaml").unlink()
    write_inventory(layout)
    listed = layout.inventory / "conf"
    assert (listed / "train/brief.yaml").read_text() == "name: brief\nsteps: 3\n"
    assert not (listed / "train/mine.yaml").exists()
    packaged = {path.relative_to(VOCABULARY) for path in VOCABULARY.glob("**/*.yaml")}
    assert {path.relative_to(listed) for path in listed.glob("**/*.yaml")} == packaged
    assert {path.stem for path in (layout.inventory / "revisions").iterdir()} == set(RAISED)


def test_a_raised_revision_runs_the_stages_that_it_concerns(tmp_path: Path) -> None:
    """By DVC itself, with commands that only note that they ran."""
    stages = {name: dict(THEIRS[name]) for name in ("inventory", "prepare-base", "report")}
    stages["inventory"]["cmd"] = f"cp -R source {INVENTORY}"
    for name, room in (("prepare-base", "bases"), ("report", "quantizers")):
        dep = f"{INVENTORY}/revisions/{room}.json"
        assert dep in stages[name]["deps"]
        stages[name] = {"cmd": f"cp {dep} {name}", "deps": [dep], "outs": [name]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "experiments").mkdir()
    for room in ("bases", "quantizers"):
        _revision(tmp_path, room, 1)
    _run(tmp_path, "dvc init -q --no-scm")
    assert _run(tmp_path, "dvc repro").count("Running stage") == 3
    _revision(tmp_path, "quantizers", 2)
    told = _run(tmp_path, "dvc repro")
    assert "Running stage 'report'" in told
    assert "Running stage 'prepare-base'" not in told


def _revision(root: Path, room: str, revision: int) -> None:
    path = root / f"source/revisions/{room}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"revision": revision}))


def _run(folder: Path, command: str) -> str:
    words = [sys.executable, "-m", *shlex.split(command)]
    return subprocess.run(
        words, cwd=folder, env=environment(), check=True, capture_output=True, text=True
    ).stdout
