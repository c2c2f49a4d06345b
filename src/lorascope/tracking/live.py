"""Steps reach MLflow while packs train: the sweep's process sends them from a thread of its own, so
that a store that is slow, or gone, costs no step.

What is sent here is sent again by nobody: when a trial ends, its record takes its run over, adds
what is missing and closes it (`runs.ensure_run`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lorascope.files.layout import Layout
from lorascope.records import LossPoint, ValidationPoint
from lorascope.tracking.connection import (
    TrackingError,
    artifact_root,
    check_database,
    configure_environment,
    failures_as_tracking_errors,
    locked,
    make_database,
    project_database,
    store_uri,
)
from lorascope.tracking.content import StartedTrial
from lorascope.tracking.liveness import Owner, close_dead
from lorascope.tracking.machine_load import MachineLoad
from lorascope.tracking.points import Point, step_points
from lorascope.tracking.runs import log_points, points_of
from lorascope.tracking.writer import Writer

if TYPE_CHECKING:
    from mlflow import MlflowClient

SHARE = 0.01
"""Of the time between two batches, the most that sending one may take of a processor."""
PATIENCE_SECONDS = 5
"""The longest that the end of a pack waits for a batch that is under way."""


@dataclass(eq=False)
class LivePack:
    """A pack that is being trained, and what was not sent of it yet."""

    trials: Sequence[StartedTrial]
    waiting: list[list[Point]]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def report(
        self,
        points: Sequence[LossPoint | None],
        validations: Sequence[ValidationPoint | None],
    ) -> None:
        """Note what a step added to the trials' logs; it costs microseconds."""
        if not points and not validations:
            return
        with self.lock:
            for curve in (points, validations):
                for waiting, logged in zip(self.waiting, curve, strict=False):
                    if logged is not None:
                        waiting += [point for point in step_points(logged) if point.is_finite]

    def take(self, index: int) -> list[Point]:
        """What waits of one trial, which is handed over with that."""
        with self.lock:
            taken, self.waiting[index] = self.waiting[index], []
        return taken


class LiveTracking:
    """What a sweep tells MLflow while it trains, for as long as the block lasts.

    Args:
        seconds: between two batches; more where sending one takes more than `SHARE` of that.
    """

    def __init__(self, layout: Layout, seconds: float) -> None:
        self._layout, self._seconds = layout, seconds
        self._packs: list[LivePack] = []
        self._runs: dict[str, str] = {}
        """Identity of a trial -> id of its open run."""
        self._there: dict[str, set[Point]] = {}
        """The same -> what its run has from before: a trial that goes on from a checkpoint repeats
        some steps."""
        self._sweeps: dict[str, int] = {}
        """Id of an open sweep's run -> when it began, in milliseconds."""
        self._sending, self._ending = threading.Lock(), threading.Event()
        self._owner: Owner | None = None
        self._writer: Writer | None = None
        self._load: MachineLoad | None = None
        self._failed = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> LiveTracking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close what no record has taken over."""
        self._ending.set()
        self._thread.join(PATIENCE_SECONDS)
        if not self._thread.is_alive() and not self._failed:
            with suppress(TrackingError):
                self._close()

    def start(self, trials: Sequence[StartedTrial]) -> LivePack:
        """A pack begins to train; its runs are opened with the first batch."""
        pack = LivePack(trials, [[] for _ in trials])
        self._packs.append(pack)
        return pack

    def end(self, pack: LivePack) -> None:
        """A pack has ended, and its records will say the rest."""
        self._packs.remove(pack)
        if self._sending.acquire(timeout=PATIENCE_SECONDS):
            self._sending.release()
        else:
            self._failed = True

    def leave(self, identities: Sequence[str]) -> None:
        """The records of these trials have closed their runs."""
        for identity in identities:
            self._runs.pop(identity, None)

    def _run(self) -> None:
        pause = self._seconds
        while not self._failed and not self._ending.wait(pause):
            begun = time.thread_time()
            try:
                has_opened = self._send()
            except TrackingError:
                # Whoever publishes the records meets the same, and says it.
                self._failed = True
            else:
                # Libraries are loaded and runs opened once, by whoever comes first: that is no
                # part of a batch.
                spent = 0.0 if has_opened else time.thread_time() - begun
                pause = max(self._seconds, spent / SHARE)

    def _send(self) -> bool:
        """Send what waits; whether runs had to be opened."""
        has_opened = False
        for pack in list(self._packs):
            for index, trial in enumerate(pack.trials):
                with self._sending, failures_as_tracking_errors(self._layout):
                    if pack not in self._packs or self._failed:
                        break
                    has_opened |= trial.identity not in self._runs
                    writer, run_id = self._opened(trial)
                    there = self._there.get(trial.identity, set())
                    if points := [p for p in pack.take(index) if p not in there]:
                        log_points(writer.client, run_id, points, _now_ms())
        if self._writer and self._packs:
            with self._sending, failures_as_tracking_errors(self._layout):
                self._send_load(self._writer.client)
        return has_opened

    def _send_load(self, client: MlflowClient) -> None:
        assert self._load is not None
        for run_id, began_ms in self._sweeps.items():
            log_points(client, run_id, self._load.points((_now_ms() - began_ms) // 1000), _now_ms())

    def _opened(self, trial: StartedTrial) -> tuple[Writer, str]:
        """The writer, and the trial's run, which is opened where it is not."""
        if self._writer and trial.identity in self._runs:
            return self._writer, self._runs[trial.identity]
        configure_environment()
        with locked(self._layout):
            writer = self._writer or self._connect()
            assert self._owner is not None
            run, sweep = writer.open_trial(trial, self._owner.token)
        self._there[trial.identity] = points_of(writer.client, run)
        self._sweeps.setdefault(sweep.info.run_id, sweep.info.start_time)
        self._runs[trial.identity] = run.info.run_id
        return writer, run.info.run_id

    def _connect(self) -> Writer:
        from mlflow import MlflowClient

        uri = store_uri(self._layout)
        make_database(self._layout)
        check_database(uri)
        client = MlflowClient(tracking_uri=uri)
        close_dead(client, self._layout)
        self._owner = Owner(self._layout)
        self._load = MachineLoad()
        is_local = uri == project_database(self._layout)
        self._writer = Writer(client, self._layout, artifact_root(self._layout, uri), is_local)
        return self._writer

    def _close(self) -> None:
        if self._writer is None or self._owner is None:
            return
        client = self._writer.client
        with failures_as_tracking_errors(self._layout):
            for run_id in self._runs.values():
                client.set_terminated(run_id, "KILLED")
            for run_id in self._sweeps:
                client.set_terminated(run_id, "KILLED" if self._runs else "FINISHED")
        self._owner.release()


def _now_ms() -> int:
    return int(time.time() * 1000)
