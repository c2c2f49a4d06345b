"""Steps reach MLflow while packs train: the sweep's process sends them from a thread of its own, so
that a store that is slow, or gone, costs no step.

The records stay the truth. Whoever writes holds the project's lock, and of a pack that has ended
nothing is sent any more: its records take its runs over, add what is missing and close them
(`runs.ensure_run`). A number's time is that at which its run began: sent twice, it is one row.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lorascope.errors import clause
from lorascope.files.layout import Layout
from lorascope.records import LossPoint, ValidationPoint
from lorascope.tracking.connection import (
    TURN_SECONDS,
    TrackingError,
    configure_environment,
    failures_as_tracking_errors,
    locked,
)
from lorascope.tracking.content import StartedTrial
from lorascope.tracking.liveness import Owner, close
from lorascope.tracking.machine_load import MachineLoad
from lorascope.tracking.points import Point, step_points
from lorascope.tracking.runs import log_points
from lorascope.tracking.writer import Writer, connected

if TYPE_CHECKING:
    from mlflow.entities import Run

SHARE = 0.01
"""Of the time between two batches, the most that sending one may take of a processor."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0
"""Before a store that failed is tried again; each time twice as long as before."""
MOST_WAITING = 20_000
"""Points of one trial that wait for such a store; its record will have the others."""
PATIENCE_SECONDS = 5
"""The longest that the end of a sweep waits for a batch that is under way, or for other writers."""


@dataclass(eq=False)
class LivePack:
    """A pack that is being trained, and what was not sent of it yet."""

    trials: Sequence[StartedTrial]
    waiting: list[list[Point]]
    lock: threading.Lock = field(default_factory=threading.Lock)
    runs: dict[int, Run] = field(default_factory=dict)
    """Index of a trial -> its open run."""
    sweeps: dict[str, Run] = field(default_factory=dict)
    """Id -> run of a sweep of its trials that is told the load of this machine."""

    def report(
        self,
        points: Sequence[LossPoint | None],
        validations: Sequence[ValidationPoint | None],
    ) -> None:
        """Note what a step added to the trials' logs; it costs microseconds."""
        if not (points or validations):
            return
        with self.lock:
            for curve in (points, validations):
                for waiting, logged in zip(self.waiting, curve, strict=False):
                    if logged is not None and len(waiting) < MOST_WAITING:
                        waiting += [point for point in step_points(logged) if point.is_finite]

    def of(self, index: int) -> list[Point]:
        """What waits of one trial."""
        with self.lock:
            return list(self.waiting[index])

    def sent(self, index: int, count: int) -> None:
        """The first so many of them wait no more."""
        with self.lock:
            del self.waiting[index][:count]


class LiveTracking:
    """What a sweep tells MLflow while it trains, for as long as the block lasts.

    Args:
        seconds: between two batches; more where sending one takes more than `SHARE` of that.
    """

    def __init__(self, layout: Layout, seconds: float) -> None:
        self._layout, self._seconds = layout, seconds
        self._packs: list[LivePack] = []
        self._ending, self._failed = threading.Event(), threading.Event()
        self._has_told = False
        self._failed_at: tuple[LivePack, int] | None = None
        """The trial that is being sent, or was when the store failed."""
        self._writer: Writer | None = None
        self._owner: Owner | None = None
        self._load: MachineLoad | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> LiveTracking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close what no record has taken over. What does not answer is left to the next command."""
        self._ending.set()
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive() or self._failed.is_set():
            return
        if self._writer and self._owner:
            with (
                suppress(TrackingError),
                failures_as_tracking_errors(self._layout),
                locked(self._layout, PATIENCE_SECONDS),
            ):
                close(self._writer.client, self._owner.token)
                self._owner.release()

    def start(self, trials: Sequence[StartedTrial]) -> LivePack:
        """A pack begins to train; its runs are opened with the first batch."""
        pack = LivePack(trials, [[] for _ in trials])
        self._packs.append(pack)
        return pack

    def end(self, pack: LivePack) -> None:
        """A pack has ended. A batch of it may be under way; whoever publishes its records waits for
        that one's lock."""
        self._packs.remove(pack)

    def _run(self) -> None:
        configure_environment()
        pause, retry = self._seconds, 0.0
        while not self._ending.wait(pause):
            begun = time.thread_time()
            try:
                has_opened = self._send()
            except TrackingError as error:
                self._tell(error)
                self._failed.set()
                retry = min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * retry))
                pause = max(self._seconds, retry)
                continue
            self._failed.clear()
            # Libraries are loaded and runs opened once, by whoever comes first: that is no part of
            # a batch.
            spent = 0.0 if has_opened else time.thread_time() - begun
            pause, retry = max(self._seconds, spent / SHARE), 0.0

    def _tell(self, error: TrackingError) -> None:
        """Once: the sweep's own lines are what a person reads."""
        if not self._has_told and not self._ending.is_set():
            print(
                f"warning: steps do not reach MLflow while packs train: {clause(error)}. It is "
                "tried again, less and less often; the records will have them.",
                file=sys.stderr,
            )
            self._has_told = True

    def _send(self) -> bool:
        """Send what waits; whether runs had to be opened. It begins behind what failed last, so
        that a run that cannot be written holds up no other one."""
        has_opened = False
        trials = [(pack, index) for pack in list(self._packs) for index in range(len(pack.trials))]
        start = trials.index(self._failed_at) + 1 if self._failed_at in trials else 0
        for pack, index in [*trials[start:], *trials[:start]]:
            self._failed_at = pack, index
            has_opened |= self._send_trial(pack, index)
        self._failed_at = None
        self._send_load()
        return has_opened

    def _send_trial(self, pack: LivePack, index: int) -> bool:
        with failures_as_tracking_errors(self._layout), locked(self._layout):
            # It may have ended, and been published, while others held the lock.
            if pack not in self._packs:
                return False
            writer = self._writer or self._connect()
            if has_opened := index not in pack.runs:
                self._open(writer, pack, index)
            run = pack.runs[index]
            waiting = pack.of(index)
            # What is sent twice, as a store may fail after it has written it, is one row.
            log_points(writer.client, run.info.run_id, waiting, run.info.start_time)
            pack.sent(index, len(waiting))
        if has_opened:
            time.sleep(TURN_SECONDS)
        return has_opened

    def _open(self, writer: Writer, pack: LivePack, index: int) -> None:
        assert self._owner is not None
        pack.runs[index], sweep = writer.open_trial(pack.trials[index], self._owner.token)
        if sweep is not None:
            pack.sweeps[sweep.info.run_id] = sweep

    def _send_load(self) -> None:
        sweeps = {name: run for pack in list(self._packs) for name, run in pack.sweeps.items()}
        if not sweeps or self._writer is None or self._load is None:
            return
        # Once for all: the processor's is that since the last sample.
        sample, now_ms = self._load.sample(), int(time.time() * 1000)
        with failures_as_tracking_errors(self._layout), locked(self._layout):
            for name, sweep in sweeps.items():
                seconds = (now_ms - sweep.info.start_time) // 1000
                points = [Point(metric, value, seconds) for metric, value in sample.items()]
                log_points(self._writer.client, name, points, now_ms)

    def _connect(self) -> Writer:
        writer = connected(self._layout)
        self._owner = Owner(self._layout)
        self._load = MachineLoad()
        # Last: whatever fails above is tried again.
        self._writer = writer
        return writer
