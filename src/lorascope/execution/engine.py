"""Where packs are trained: slots, and jobs that travel as files.

A job is plain data in a folder that both sides see. Whoever trains it writes `events.jsonl` and
`outcome.json` there and looks for a file `stop`; whoever waits follows them. Engines differ in how
a process starts and in what is known of one that was lost; packs, locks, resuming and records are
the same above all of them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from lorascope.adapters.kinds import KINDS
from lorascope.config import Config
from lorascope.execution.events import STOP as STOP
from lorascope.execution.events import Event as Event
from lorascope.execution.events import EventReader
from lorascope.files.replacing import write_atomically
from lorascope.files.store import type_adapter
from lorascope.records import MemoryPlan, Status, TrainingResult

JOB, OUTCOME, OUTPUT = "job.json", "outcome.json", "output.log"
"""Files of a job's folder, beside those of `execution.events`."""
KEPT_LINES = 20
FOLLOW_SECONDS = 0.1
"""Between two looks at a job's files. The end of a local process is noticed at once."""
EXIT_SECONDS = 5
"""For a process that has written its outcome to give back what it holds."""


@dataclass(frozen=True)
class Slot:
    """A place that trains one pack at a time."""

    threads: int
    """Threads of the CPU; 0 leaves torch's choice."""
    memory_bytes: int | None
    """The most that a pack may use; None where it is the only one, and takes what there is."""


@dataclass(frozen=True)
class Job:
    """A pack to train."""

    base: Path
    base_name: str
    data: Path
    checkpoints: Path
    configs: Sequence[Config]
    """Configurations of its trials, which share all that `execution.packs` says."""
    adapters: Sequence[Path]
    """Folders to write the trials' adapters to."""
    slot: Slot
    full_base: Path | None = None
    """As in `PackPlan`."""

    @property
    def config(self) -> Config:
        """What is the same for all trials is the first one's."""
        return self.configs[0]


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial of a trained pack ended."""

    status: Status
    reason: str | None
    result: TrainingResult | None = None
    device: str = "unknown"
    threads: int = 0
    plan: MemoryPlan | None = None
    pack_plan: MemoryPlan | None = None
    kept: bool = True
    """False where the disk had no room for the adapter: there is nothing to record."""
    shards: int = 1
    """Devices that divided the base."""
    placed: int = 1
    """Devices over which its layers were placed."""


@dataclass(frozen=True)
class Failure:
    """The error that ended a pack."""

    reason: str
    is_input: bool = False
    """Whether it lies in what the pack was given, a setting or a folder, and not in a trial."""
    is_full_disk: bool = False
    place: str | None = None
    """The file that the disk had no room for, where that is known."""


@dataclass(frozen=True)
class Outcome:
    """How a pack ended: as its process wrote, or as is known of a process that wrote nothing."""

    trials: list[TrialOutcome] = field(default_factory=list)
    split: Literal["halves", "singles"] | None = None
    """What to try instead of a pack that lacks memory, or of which no two trials go together."""
    saved_at: tuple[int, int] | None = None
    """The step at which the pack was saved because somebody asked it to stop, and all its steps."""
    failure: Failure | None = None
    exit_signal: int | None = None
    timed_out: bool = False
    limit: str | None = None
    """What was exceeded, where `timed_out` and it is not runtime.trial_timeout_seconds."""
    last_lines: list[str] = field(default_factory=list)
    """What the process printed last."""


def without_room(job: Job, alone: TrialOutcome) -> Outcome:
    """Of a pack that has no room: a trial by itself ends as `alone` says, several are tried in
    halves."""
    return Outcome([alone]) if len(job.configs) == 1 else Outcome(split="halves")


class Killed(Exception):
    """A job that was ended because somebody asked for it."""


class Engine(Protocol):
    """Where packs are trained."""

    def prepare(self) -> None:
        """Begin what takes seconds before the first job can start."""

    def await_ready(self) -> None:
        """Return once jobs can start at once."""

    def slots(self, packs: int) -> list[Slot]:
        """Places for at most so many packs at the same time, one or more."""

    def underway(self) -> list[list[str]]:
        """Packs that a sweep which was killed left behind, by the identities of their trials, and
        that `submit` goes on with."""

    def submit(self, job: Job) -> FollowedJob:
        """Start to train `job` in its slot. The caller holds the locks of its trials."""


class Process(Protocol):
    """What engines differ in: a process somewhere, that trains the job of one folder."""

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, waiting for that up to so many seconds."""

    def runs(self) -> bool:
        """Whether it is at work: a queue may hold it. Time limits count while it is."""

    def kill(self) -> None:
        """End it at once; from whatever thread."""

    def bring(self) -> None:
        """Put what it has made where the job says, if it was made elsewhere: it wrote an outcome,
        and its folder goes next."""

    def lost(self) -> Outcome:
        """How it ended, having written no outcome."""


class FollowedJob:
    """A job that was submitted, and whose files can be read here."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.folder = folder
        """Goes when the job has ended."""
        self._process = process
        self._killed = False
        self._events = EventReader(folder)

    def stop(self, now: bool) -> None:
        """Ask the pack to save and stop, or end its process at once; from whatever thread."""
        if now:
            self._killed = True
            self._process.kill()
        else:
            # The folder goes when the job has ended.
            with suppress(OSError):
                (self.folder / STOP).touch()

    def wait(self, on_event: Callable[[Event], None], timeout_seconds: float | None) -> Outcome:
        """Follow the job to its end, which comes after `timeout_seconds` at the latest. Its folder
        is gone afterwards.

        Raises:
            Killed: `stop(now=True)` ended it.
        """
        try:
            timed_out = self._follow(on_event, timeout_seconds)
            if self._killed:
                raise Killed
            outcome: Outcome
            if (self.folder / OUTCOME).is_file():
                outcome = read_outcome(self.folder)
                self._process.bring()
            else:
                outcome = Outcome(timed_out=True) if timed_out else self._process.lost()
            return replace(outcome, last_lines=last_lines(self.folder))
        finally:
            if not self._process.ended(0):
                self._process.kill()
                self._process.ended(EXIT_SECONDS)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _follow(self, on_event: Callable[[Event], None], timeout_seconds: float | None) -> bool:
        """Hand over events until the job has ended; whether it took too long."""
        worked_seconds, looked = 0.0, time.monotonic()
        while not self._process.ended(FOLLOW_SECONDS):
            self._events.hand_over(on_event)
            if (self.folder / OUTCOME).is_file():
                self._process.ended(EXIT_SECONDS)
                break
            before, looked = looked, time.monotonic()
            worked_seconds += looked - before if self._process.runs() else 0.0
            if timeout_seconds is not None and worked_seconds >= timeout_seconds:
                return True
        self._events.hand_over(on_event)
        return False


def plain_job(job: Job) -> dict[str, Any]:
    """`job` as JSON has it. The settings of an adapter stand under the name of their kind, as each
    kind has its own."""
    plain: dict[str, Any] = type_adapter(Job).dump_python(job, mode="json", warnings=False)
    for values, config in zip(plain["configs"], job.configs, strict=True):
        own = config.adapter
        values["adapter"] = {own.kind: type_adapter(type(own)).dump_python(own, mode="json")}
    return plain


def write_job(folder: Path, job: Job) -> None:
    """Put `job` into its folder."""
    write_atomically(folder / JOB, json.dumps(plain_job(job)).encode())


def read_job(folder: Path) -> Job:
    """The job of a folder."""
    plain = json.loads((folder / JOB).read_bytes())
    adapters = [values.pop("adapter") for values in plain["configs"]]
    job: Job = type_adapter(Job).validate_python(plain)
    for config, settings in zip(job.configs, adapters, strict=True):
        ((kind, values),) = settings.items()
        config.adapter = type_adapter(KINDS[kind].config).validate_python(values)
    return job


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Tell whoever follows how the job ended, as the last thing."""
    # Python's JSON keeps infinities, which a prediction may hold.
    plain = type_adapter(Outcome).dump_python(outcome, mode="json")
    write_atomically(folder / OUTCOME, json.dumps(plain).encode())


def read_outcome(folder: Path) -> Outcome:
    """What `write_outcome` wrote."""
    values = json.loads((folder / OUTCOME).read_bytes())
    outcome: Outcome = type_adapter(Outcome).validate_python(values)
    return outcome


def last_lines(folder: Path) -> list[str]:
    """What a job's process printed last."""
    log = folder / OUTPUT
    if not log.is_file():
        return []
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-KEPT_LINES:]
