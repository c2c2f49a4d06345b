"""What commands cost that have nothing to train: a repetition by DVC, help, refusal, dry run."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median

import yaml

from benchmarks.measure import (
    TOOLS,
    BenchmarkError,
    Command,
    Ratios,
    always,
    in_turns,
    ratios,
    run,
)
from benchmarks.table import AT_MOST, Row, measured
from benchmarks.workload import MODE, REPOSITORY, Workload, environment, make_project

STARTUP_COMMANDS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("help", ("--help",), 0),
    ("refusal of a bad value", ("train-lora", "-m", "lora.rank=8,-1"), 2),
    ("dry run", ("train-lora", "--cfg", "job", "lora.rank=8"), 0),
)
"""What the row is called, the command, and its exit code. A dry run composes and prints the
configuration of a trial."""
STARTUP_SECONDS = 0.6
DVC_FILES = ("dvc.yaml", ".dvcignore", ".gitignore")


def nothing_to_do(workload: Workload) -> list[Row]:
    """`dvc repro` of a finished study against the same graph whose commands are all `true`."""
    ours, bare = finished_study(workload), workload.folder / "bare-study"
    shutil.copytree(ours, bare, symlinks=True)
    graph = yaml.safe_load((bare / "dvc.yaml").read_text(encoding="utf-8"))
    for stage in graph["stages"].values():
        stage["cmd"] = "true"
    (bare / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    run(dvc(bare, "commit", "--force", "--quiet"))
    for root in (ours, bare):
        if "up to date" not in run(dvc(root, "repro")):
            raise BenchmarkError(f"{root.name}: `dvc repro` still had something to do")
    seconds = in_turns(
        [always(dvc(root, "repro")) for root in (ours, bare)],
        workload.size.startup_rounds,
    )
    row = Row(
        "nothing to do", "`dvc repro` again / bare DVC on the same graph", AT_MOST, 1.1, "x",
        workload=f"The repository's dvc.yaml with one mode ({MODE}), a finished study of one "
        "trial; bare: the same files and graph, each command replaced by `true`.",
        note=f"Medians: {median(seconds[0]):.2f} s and {median(seconds[1]):.2f} s.",
    )  # fmt: skip
    return [measured(row, ratios(*seconds))]


def finished_study(workload: Workload) -> Path:
    """A small project that `dvc repro` has run through."""
    root = workload.folder / "study"
    make_project(root)
    train = root / "conf" / "train" / "bench.yaml"
    steps = workload.size.stored_steps
    train.write_text(re.sub(r"steps: \d+", f"steps: {steps}", train.read_text(), count=1))
    for name in DVC_FILES:
        shutil.copy(REPOSITORY / name, root / name)
    # DVC wants to see the code's files where dvc.yaml names them.
    (root / "src").symlink_to(REPOSITORY / "src")
    run(Command(("git", "init", "--quiet"), root))
    for words in (("init", "--quiet"), ("repro", "--quiet")):
        run(dvc(root, *words, threads=workload.threads))
    return root


def dvc(root: Path, *words: str, threads: int = 1) -> Command:
    """A DVC command in the project `root`."""
    return Command((str(TOOLS / "dvc"), *words), root, environment(threads))


def startup(workload: Workload) -> list[Row]:
    """Absolute seconds of commands that should answer at once, and whether they import torch."""
    root = workload.prepared
    commands = {
        name: workload.lorascope(root, *words, exit_code=code)
        for name, words, code in STARTUP_COMMANDS
    }
    sides = [always(command) for command in commands.values()]
    seconds = in_turns(sides, workload.size.startup_rounds)
    rows = [
        measured(
            Row(
                f"startup: {name}", f"`lorascope {' '.join(words)}` (absolute)", AT_MOST,
                STARTUP_SECONDS, "s", threads=f"Threads: lorascope {workload.threads}.",
            ),
            Ratios(tuple(taken)),
        )
        for (name, words, _), taken in zip(STARTUP_COMMANDS, seconds, strict=True)
    ]  # fmt: skip
    importing = [name for name, command in commands.items() if imports_torch(command)]
    torch = Row(
        "startup: torch", "commands above that import torch (absolute)", AT_MOST, 0, "commands",
        value=len(importing), lowest=len(importing), highest=len(importing), runs=1,
        note=", ".join(importing),
    )  # fmt: skip
    return [*rows, torch]


def imports_torch(command: Command) -> bool:
    """Whether Python's own log of imports names torch."""
    logged = {**command.environment, "PYTHONPROFILEIMPORTTIME": "1"}
    printed = run(replace(command, environment=logged))
    return re.search(r"^import time:.*\| +torch$", printed, re.MULTILINE) is not None
