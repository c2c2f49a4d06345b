"""dvc.yaml of a study outside a clone: that of the repository, with what the stages read of the
installed lorascope in place of its sources.

A stage named `inventory` writes that down whenever `dvc repro` runs: the choices of conf/, the
project's own before those of the package, and the revision of each room whose code decides values.
So a raised revision, or another default in a file of conf/, runs the stages again that it concerns,
and a release that changes neither runs none of those.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from lorascope.files.layout import Layout
from lorascope.files.replacing import write_atomically
from lorascope.files.revisions import RAISED, RAISED_FOR_LONG_SAMPLES, RAISED_IN_16_BITS

TEMPLATES = Path(__file__).parent / "templates"
"""Files of the repository that a study begins with, too."""
INVENTORY = "experiments/inventory"
VERSION = "version.json"
STAGE = f"""\
stages:
  inventory:
    desc: List what this study reads of the installed lorascope, choices of conf/ and revisions
    cmd: lorascope inventory
    always_changed: true
    outs:
      - {INVENTORY}

"""
STARTS = re.compile(r"^  \S")
"""The first line of a stage."""
JUDGES = re.compile(r"^    params: \[")
"""Of a stage that looks at the whole grid and judges it, which takes seconds: it runs again with
each release."""
CODE = re.compile(r"^      - src/lorascope/([\w/.]+)$")
CONF = re.compile(r"^      - conf(/\S+)?$")


def present_wiring() -> str:
    """dvc.yaml as this release writes it. The template has another name, as DVC would take it for a
    pipeline of the repository's."""
    return project_wiring((TEMPLATES / "stages.yaml").read_text(encoding="utf-8"))


def project_wiring(repository_wiring: str) -> str:
    """The text of a project's dvc.yaml, made of that of the repository's, line by line."""
    head, stages = repository_wiring.split("stages:\n", 1)
    made: list[str] = []
    judges, named = False, set[str]()
    for line in stages.splitlines():
        if STARTS.match(line):
            judges, named = False, set()
        judges = judges or JUDGES.match(line) is not None
        own = _in_place_of(line, judges)
        if own is not None and own not in named:
            made.append(own)
        if own != line:
            named.add(str(own))
    return head + STAGE + "\n".join(made) + "\n"


def _in_place_of(line: str, judges: bool) -> str | None:
    """What a project's dvc.yaml says where the repository's says `line`; None for nothing."""
    if conf := CONF.match(line):
        return f"      - {INVENTORY}/conf{conf[1] or ''}"
    code = CODE.match(line)
    if code is None:
        return line
    if code[1] in RAISED:
        return f"      - {INVENTORY}/revisions/{code[1]}.json"
    return f"      - {INVENTORY}/{VERSION}" if judges else None


def write_inventory(layout: Layout) -> None:
    """Write `experiments/inventory` anew: DVC holds its files against those of the last run."""
    shutil.rmtree(layout.inventory, ignore_errors=True)
    for group in _groups(layout):
        for name, file in layout.choices(group).items():
            target = layout.inventory / "conf" / group / f"{name}.yaml"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    for room, reasons in RAISED.items():
        found = {
            "revision": 1 + len(reasons),
            "in_16_bits": len(RAISED_IN_16_BITS.get(room, ())),
            "for_long_samples": len(RAISED_FOR_LONG_SAMPLES.get(room, ())),
        }
        _write(layout.inventory / "revisions" / f"{room}.json", found)
    _write(layout.inventory / VERSION, {"lorascope": version("lorascope")})


def _groups(layout: Layout) -> list[str]:
    """The folders of conf/, and conf/ itself, which holds the defaults."""
    places = (place for folder in layout.conf_folders for place in folder.iterdir())
    return [".", *sorted({place.name for place in places if place.is_dir()})]


def _write(path: Path, values: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(values) + "\n").encode())
