"""Jobs of a cluster whose command was killed: they go on, and nobody waits for them."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from lorascope.execution.engine import OUTCOME
from lorascope.execution.packs import TRIALS
from lorascope.execution.shared_folder import LATE_SECONDS, RUNNING
from lorascope.execution.slurm.process import ID
from lorascope.files.layout import Layout
from lorascope.files.revisions import SHORT_HASH_LENGTH


def left_jobs(layout: Layout, running: Collection[Path]) -> list[str]:
    """A sentence for each; from files alone, as no queue is asked.

    Args:
        running: folders that some process writes: a command that waits for a job holds the locks of
            its trials, whose folders end with the beginnings of their identities.
    """
    waited_for = {folder.name.rpartition("-")[2] for folder in running}
    found = []
    for note in sorted(layout.jobs.glob(f"*/{TRIALS}")):
        # Somebody may take it away.
        with suppress(OSError, ValueError):
            trials = {str(one)[:SHORT_HASH_LENGTH] for one in json.loads(note.read_bytes())}
            job = (note.parent / ID).read_text()
            if not trials & waited_for:
                found.append(f"job {job}, {_counted(len(trials))}: {_state(note.parent)}")
    return found


def _counted(trials: int) -> str:
    return f"{trials} trial{'s' if trials > 1 else ''}"


def _state(folder: Path) -> str:
    if (folder / OUTCOME).is_file():
        return "has ended, and its results wait here"
    if (folder / RUNNING).is_file():
        silent_seconds = time.time() - (folder / RUNNING).stat().st_mtime
        if silent_seconds < LATE_SECONDS:
            return "at work"
        return f"silent for {silent_seconds / 60:.0f} minutes: its node may be lost"
    return "waits in the queue, or is lost"
