"""How much memory a job asks Slurm for: what its pack is predicted to need, and a reserve."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lorascope.config import DeviceKind
from lorascope.execution.child import answer, job_subject
from lorascope.execution.engine import Outcome, read_job
from lorascope.execution.local.slots import PRELOADED, Child
from lorascope.training.progress import Progress

MEBIBYTE = 2**20
STEP_BYTES = 256 * MEBIBYTE
"""Requests are rounded up to so much, so that packs that need about the same share an array."""
RESERVE_SHARE = 0.1
PROCESS_BYTES = 1024 * MEBIBYTE
GPU_PROCESS_BYTES = 6 * 1024 * MEBIBYTE
JOBS, NEEDS = "jobs.json", "needs.json"


def predicted_bytes(folders: Sequence[Path]) -> list[int | None]:
    """What the job in each of `folders` takes on a node, rounded up; None where that cannot be
    predicted. In a child process, as predicting needs torch."""
    with tempfile.TemporaryDirectory(prefix="lorascope-") as name:
        place = Path(name)
        (place / JOBS).write_text(json.dumps([str(folder) for folder in folders]))
        child = Child(_predict, place, PRELOADED, fresh=False)
        while not child.ended(1.0):
            pass
        if not (place / NEEDS).is_file():
            return [None] * len(folders)
        needs: list[int | None] = json.loads((place / NEEDS).read_bytes())
        return needs


def _predict(place: Path) -> None:
    """The body of the child."""
    answer(place, lambda progress: _write_needs(place, progress))


def _write_needs(place: Path, progress: Progress) -> Outcome:
    folders = [Path(text) for text in json.loads((place / JOBS).read_bytes())]
    (place / NEEDS).write_text(json.dumps([_needed(folder) for folder in folders]))
    return Outcome()


def _needed(folder: Path) -> int | None:
    import lorascope.execution.local.preloaded  # noqa: F401
    from lorascope.planning.fits import failed_prediction_passed_over
    from lorascope.planning.plan import needed_bytes, plan_memory

    job = read_job(folder)
    with failed_prediction_passed_over("this pack"):
        if job.config.engine.gpus and job.config.runtime.device is not DeviceKind.cpu:
            # The plan is the GPU's. Through RAM goes the base, once.
            needed = sum(path.stat().st_size for path in job.base.glob("*.safetensors"))
            reserve = GPU_PROCESS_BYTES
        else:
            needed = needed_bytes(plan_memory(job_subject(job, DeviceKind.cpu)))
            reserve = PROCESS_BYTES
        whole = (1 + RESERVE_SHARE) * needed + reserve
        return -(-int(whole) // STEP_BYTES) * STEP_BYTES
    return None
