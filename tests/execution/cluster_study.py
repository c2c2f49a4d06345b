"""A small sweep on a cluster: how it is started and awaited, and what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorascope.files.layout import Layout

SEEDS = (970, 971)
OF_A_RUN = {"tokens_per_second", "memory", "pack_ranks", "resumed_at_step"}


def start(layout: Layout, *words: str) -> subprocess.Popen[str]:
    """A command whose work is done elsewhere."""
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "lorascope"), *words], cwd=layout.root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait(holds: Callable[[], bool], head: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert head.poll() is None, head.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def results(layout: Layout) -> dict[str, dict[str, Any]]:
    """Trial -> its result, but for seconds and what tells of the run."""
    records = [json.loads(path.read_text()) for path in layout.trials("nf4").glob("*/record.json")]
    return {
        record["trial"]: {
            key: value
            for key, value in record["result"].items()
            if key not in OF_A_RUN and not key.endswith("seconds")
        }
        for record in records
        if record["key"]["seed"] in SEEDS
    }


def items(layout: Layout) -> dict[str, bytes]:
    """What each trial said to each item."""
    folder = layout.evaluations("nf4")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for seed in SEEDS
        for path in folder.glob(f"*-s{seed}-*/*.jsonl")
    }
