"""How much memory a job asks Slurm for: what its work is predicted to need, and a reserve."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lorascope.config import Config, DeviceKind
from lorascope.execution.child import answer, job_subject
from lorascope.execution.engine import Outcome, read_job
from lorascope.execution.local.slots import PRELOADED, Child

MEBIBYTE = 2**20
STEP_BYTES = 256 * MEBIBYTE
"""Requests are rounded up to so much, so that packs that need about the same share an array."""
RESERVE_SHARE = 0.1
PROCESS_BYTES = 1024 * MEBIBYTE
"""Libraries of a process that trains on a CPU and of the one that watches over it: 0.5 GB, seen."""
GPU_PROCESS_BYTES = 6 * 1024 * MEBIBYTE
NEEDS = "needs.json"

Predicted = Callable[[], int]
"""Predicts how many bytes some work takes on a node, in a process that may load torch."""


def predicted_bytes(predictions: Sequence[Predicted]) -> list[int | None]:
    """What each of them says, in a child process; None for one that fails."""
    with tempfile.TemporaryDirectory(prefix="lorascope-") as name:
        place = Path(name)
        child = Child(partial(_predict, predictions), place, PRELOADED, fresh=False)
        while not child.ended(1.0):
            pass
        if not (place / NEEDS).is_file():
            return [None] * len(predictions)
        needs: list[int | None] = json.loads((place / NEEDS).read_bytes())
        return needs


def _predict(predictions: Sequence[Predicted], place: Path) -> None:
    """The body of the child."""
    answer(place, lambda progress: _write_needs(predictions, place))


def _write_needs(predictions: Sequence[Predicted], place: Path) -> Outcome:
    import lorascope.execution.local.preloaded  # noqa: F401
    from lorascope.planning.fits import failed_prediction_passed_over

    needs: list[int | None] = [None] * len(predictions)
    for index, predicted in enumerate(predictions):
        with failed_prediction_passed_over("a job"):
            needs[index] = predicted()
    (place / NEEDS).write_text(json.dumps(needs))
    return Outcome()


def pack_bytes(folder: Path) -> int:
    """Of the pack of a job's folder."""
    from lorascope.planning.plan import needed_bytes, plan_memory

    job = read_job(folder)
    shards = job.config.runtime.shard
    if on_gpu(job.config):
        return gpu_job_bytes(job.base, shards)
    return job_bytes(needed_bytes(plan_memory(job_subject(job, DeviceKind.cpu))), shards)


def on_gpu(config: Config) -> bool:
    """Whether jobs ask for a GPU and take it."""
    return config.engine.gpus > 0 and config.runtime.device is not DeviceKind.cpu


def gpu_job_bytes(base: Path, processes: int = 1) -> int:
    """RAM where a GPU has the rest: through RAM goes the base, once for each process."""
    stored = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    return _with_reserve(processes * stored, processes * GPU_PROCESS_BYTES)


def job_bytes(predicted: int, processes: int = 1) -> int:
    """RAM for processes each of which is predicted to take so many bytes beside its libraries."""
    return _with_reserve(processes * predicted, processes * PROCESS_BYTES)


def _with_reserve(size: int, process: int) -> int:
    whole = int((1 + RESERVE_SHARE) * size) + process
    return -(-whole // STEP_BYTES) * STEP_BYTES
