"""What a machine with a GPU is given beside the checkout: a study with its CPU records, and plans.

    python -m benchmarks.gpu_check.carry FOLDER

It takes the study that `make repro` has left in this checkout. With --tiny it makes a small one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu_check.plans import plans
from benchmarks.gpu_check.study import STAGES, configurations, run_stages
from benchmarks.origin import REPOSITORY
from benchmarks.workload import MODEL, TRAIN, make_project
from lorascope.config import Config
from lorascope.files.layout import RECORD, Layout
from lorascope.machine.libraries import quiet_libraries

STUDY, PLANS = "study", "plans.json"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check.carry")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path, default=REPOSITORY, help="whose study is carried")
    parser.add_argument("--tiny", action="store_true", help="a small study and plans for a CPU")
    return parser.parse_args()


def main() -> None:
    """Write study and plans anew; other files in the folder stay."""
    given = arguments()
    quiet_libraries()
    study = Layout(given.folder / STUDY)
    shutil.rmtree(study.root, ignore_errors=True)
    if given.tiny:
        with tempfile.TemporaryDirectory() as scratch:
            carry_study(tiny_study(Path(scratch) / "tiny"), study)
    else:
        carry_study(Layout(given.project), study)
    planned = plans(given.tiny, "cpu" if given.tiny else "cuda")
    (given.folder / PLANS).write_text(json.dumps(planned, indent=1) + "\n", encoding="utf-8")
    print(f"{given.folder}: {STUDY}/ and {len(planned)} plans")


def carry_study(project: Layout, target: Layout) -> None:
    """Copy what declares the study, base and data, and the records of its trials and scores.

    Raises:
        SystemExit: the project's study was not run.
    """
    configs = configurations(project)
    model, data = configs[0].model.name, configs[0].data.name
    folders = [project.base(model), project.data(model, data)]
    missing = [folder for folder in folders if not (folder / RECORD).is_file()]
    records = sorted((project.root / "experiments").glob(f"*/*/*/{RECORD}"))
    if missing or not records:
        sys.exit("gpu-check: the study that is carried was not run here. Run `make repro` first.")
    for source in (project.conf, *folders):
        shutil.copytree(source, target.root / source.relative_to(project.root))
    shutil.copy(project.params, target.params)
    for record in records:
        copy = target.root / record.relative_to(project.root)
        copy.parent.mkdir(parents=True)
        shutil.copy(record, copy)


def tiny_study(root: Path) -> Layout:
    """A study of two briefly trained trials in one mode, on this computer's CPU."""
    root.mkdir()
    make_project(root)
    layout = Layout(root)
    (root / "conf/model/bench.yaml").write_text(MODEL.replace("steps: 20", "steps: 2"))
    (root / "conf/train/bench.yaml").write_text(TRAIN.replace("steps: 100", "steps: 4"))
    params = layout.params.read_text().replace('rank: "4"', 'rank: "2,4"')
    layout.params.write_text(params.replace("ship: auto", "ship: nf4-r0004"))
    configs: list[Config] = configurations(layout, "runtime.device=cpu")
    run_stages(layout, ["prepare-base", "prepare-data", *STAGES], configs)
    return layout


if __name__ == "__main__":
    main()
