"""kill -9 at random moments of a sweep, then the same command again: the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorascope.execution.local.slots import PRELOADED, await_imports
from lorascope.files.layout import Layout
from lorascope.files.replacing import scratch_target
from tests.command_line import lorascope
from tests.conftest import BASE_OVERRIDES

KILLS = int(os.environ.get("LORASCOPE_KILLS", "2"))
"""A hundred take 20 minutes to an hour."""
SEEDS = (990, 991)
"""No other test's in the shared project."""
SWEEP = (
    "quant=nf4", "lora.rank=1,4,16", "lora.alpha=8", f"seed={SEEDS[0]},{SEEDS[1]}",
    "train.steps=60", "train.checkpoint_every_steps=5",
    # Two packs side by side.
    "runtime.threads=2",
)  # fmt: skip


COMMAND = ("train-lora", "-m", *BASE_OVERRIDES, *SWEEP)


def start(project: Layout) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "lorascope"), *COMMAND], cwd=project.root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def undisturbed_seconds(project: Layout) -> float:
    """What training takes, once the libraries are loaded."""
    await_imports(PRELOADED)
    started = time.monotonic()
    whole = lorascope(project, *COMMAND)
    assert whole.returncode == 0, whole.stderr
    return time.monotonic() - started


def await_training(process: subprocess.Popen[str], project: Layout, before: set[Path]) -> None:
    """Return at the first checkpoint of a pack: a kill among the imports disturbs nothing."""
    while not saved(project) - before:
        assert process.poll() is None
        time.sleep(0.01)


def saved(project: Layout) -> set[Path]:
    """All checkpoints; other tests leave some."""
    return set(project.checkpoints.glob("*/*/checkpoint-*"))


def adapters(folder: Path) -> dict[str, str]:
    """Trial -> digest of its adapter; scratch folders aside."""
    records = [json.loads(path.read_text()) for path in folder.glob("*/record.json")]
    return {
        record["trial"]: record["result"]["adapter_sha256"]
        for record in records
        if record["key"]["seed"] in SEEDS
    }


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_bits(project: Layout) -> None:
    folder = project.trials("nf4")
    seconds = undisturbed_seconds(project)
    undisturbed = adapters(folder)
    assert len(undisturbed) == 6
    chance = random.Random(0)
    for kill in range(KILLS):
        for trial in undisturbed:
            (folder / trial).rename(project.root / f"{trial}-{kill}")
        before = saved(project)
        process = start(project)
        await_training(process, project, before)
        # A whole group: the sweep, its fork server and the pack's child.
        time.sleep(chance.uniform(0.0, 1.0) * seconds)
        kept = adapters(folder)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        times = {name: (folder / name / "record.json").stat().st_mtime_ns for name in kept}
        # The same command, by whichever process.
        again = lorascope(project, *COMMAND)
        assert again.returncode == 0, again.stderr
        assert adapters(folder) == undisturbed, f"kill {kill}"
        for name, changed in times.items():
            assert (folder / name / "record.json").stat().st_mtime_ns == changed
    left = [path for path in folder.iterdir() if path.name.startswith(".")]
    assert all(scratch_target(path) is not None for path in left)
