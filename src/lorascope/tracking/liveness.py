"""Whose runs are being written: a lock that the system drops with its process, so that a run whose
writer is dead can be told, and closed."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lorascope.files.layout import Layout
from lorascope.tracking.connection import store_uri
from lorascope.tracking.content import LIVE_TAG
from lorascope.tracking.runs import set_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "live"
MAX_EXPERIMENTS = 1000


class Owner:
    """This process as the writer of runs: they have its token for a tag. Make one while holding
    `locked`."""

    def __init__(self, layout: Layout) -> None:
        self.token = f"{_store(layout)}-{uuid.uuid4().hex}"
        folder = layout.private / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{self.token}.lock"
        # Another thread than the one that made it may release it.
        self._lock = FileLock(self._path, thread_local=False)
        self._lock.acquire()

    def release(self) -> None:
        """Nothing is left open."""
        self._lock.release()
        self._path.unlink(missing_ok=True)


def close_dead(client: MlflowClient, layout: Layout) -> int:
    """Close, as killed, the runs of processes that are gone; how many. Call it while holding
    `locked`. Those in another store wait until that one is used again."""
    closed = 0
    for path in sorted((layout.private / FOLDER).glob(f"{_store(layout)}-*.lock")):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            closed += close(client, path.stem)
            path.unlink(missing_ok=True)
        finally:
            lock.release()
    return closed


def local_tokens(layout: Layout) -> frozenset[str]:
    """Those of this project's own writers; others may write to the same server."""
    return frozenset(path.stem for path in (layout.private / FOLDER).glob("*.lock"))


def close(client: MlflowClient, token: str) -> int:
    """Close, as killed, what a writer has left open; how many. Call it while holding `locked`."""
    experiments = [
        one.experiment_id for one in client.search_experiments(max_results=MAX_EXPERIMENTS)
    ]
    wanted = f"tags.`{LIVE_TAG}` = '{token}'"
    runs = client.search_runs(experiments, wanted) if experiments else []
    trials = [run for run in runs if run.data.tags.get("status") == "running"]
    for run in trials:
        client.set_terminated(run.info.run_id, "KILLED")
        set_tags(client, run, {"status": "killed"})
    for run in runs:
        client.delete_tag(run.info.run_id, LIVE_TAG)
    return len(trials)


def _store(layout: Layout) -> str:
    """The store's address as a digest, which holds no credential."""
    return hashlib.sha256(store_uri(layout).encode()).hexdigest()[:8]
