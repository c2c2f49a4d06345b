"""A pack whose base several processes of this computer divide, each with a device of its own.

The pack's child starts them, waits, and says how it ended: with what the first process found, or
with what ended the first one that did not come to its end. Where one dies the others would wait for
it, and are killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from lorascope.execution.engine import (
    OUTCOME,
    OUTPUT,
    Failure,
    Job,
    Outcome,
    last_lines,
    read_outcome,
)
from lorascope.records import Status
from lorascope.training.progress import Progress, StepReport, ValidationReport

if TYPE_CHECKING:
    # It imports torch, which only those who train need.
    from lorascope.machine.ranks import Ranks

MEETING = "meeting"
OTHERS_SECONDS = 5.0
"""For the others to end, once one has: all end together, unless they wait for one that is gone."""
NO_ROOM = (Status.refused, Status.out_of_memory)

Work = Callable[[Job, Progress, "Ranks"], Outcome]
Answer = Callable[[Path, Callable[[Progress], Outcome]], None]


def train_divided(
    folder: Path, job: Job, progress: Progress, work: Work, answer: Answer
) -> Outcome:
    """Let as many processes as job.config.runtime.shard says do `work` together.

    Args:
        folder: the job's own.
        progress: the first process tells it how far they are, and all hear what it says.
        answer: does one process's work, and writes how it ended into that process's folder.
    """
    count = job.config.runtime.shard
    with tempfile.TemporaryDirectory(prefix="ranks-", dir=folder) as name:
        places = [Path(name) / str(rank) for rank in range(count)]
        for place in places:
            place.mkdir()
        # What the first one prints is what is seen of a pack.
        (places[0] / OUTPUT).symlink_to(folder / OUTPUT)

        def body(rank: int) -> None:
            ranks = (rank, count, Path(name) / MEETING)
            answer(places[rank], lambda _: _part(job, progress, work, *ranks))

        with _processes(body, count) as processes:
            ended = _await(processes, places)
        return _outcome(ended, places)


def _part(
    job: Job, progress: Progress, work: Work, rank: int, count: int, meeting: Path
) -> Outcome:
    from lorascope.machine.ranks import Ranks, join, leave, use_own_device

    ranks = Ranks(rank, count)
    join(ranks, use_own_device(job.config.runtime.device, ranks), meeting)

    def told(event: StepReport | ValidationReport) -> bool:
        return ranks.agreed(rank == 0 and progress(event))

    outcome = work(job, told, ranks)
    if not _lacks_room(outcome):
        # None ends before all have come so far, or it would be taken for the only one that did.
        ranks.add_counts([0])
    leave()
    return outcome


@contextmanager
def _processes(body: Callable[[int], None], count: int) -> Iterator[list[BaseProcess]]:
    """Processes that do `body(rank)`; they end with this one, and with the block.

    They are forked: libraries that this process has imported are theirs. It must not have begun
    CUDA, which a fork could not use.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = os.pipe()

    def run(rank: int) -> None:
        os.close(theirs)
        threading.Thread(target=_end_with_parent, args=(ours,), daemon=True).start()
        body(rank)

    processes: list[BaseProcess] = [context.Process(target=run, args=(r,)) for r in range(count)]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()
        os.close(ours)
        os.close(theirs)


def _end_with_parent(pipe: int) -> None:
    """Kill this process once nobody holds the pipe's other end: it would write to the same places
    as the next sweep's."""
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _await(processes: Sequence[BaseProcess], places: Sequence[Path]) -> list[Outcome | None]:
    """How each process ended; None for one that was still at work when it was given up."""
    limit: float | None = None
    while True:
        left = [process for process in processes if process.exitcode is None]
        if not left:
            break
        if limit is None and len(left) < len(processes):
            limit = time.monotonic() + OTHERS_SECONDS
        if limit is not None and time.monotonic() >= limit:
            break
        wait([process.sentinel for process in left], 0.1 if limit else None)
    return [_ended(process, place) for process, place in zip(processes, places, strict=True)]


def _ended(process: BaseProcess, place: Path) -> Outcome | None:
    if (place / OUTCOME).is_file():
        return read_outcome(place)
    if process.exitcode is None:
        return None
    if process.exitcode < 0:
        return Outcome(exit_signal=-process.exitcode)
    words = "\n".join(last_lines(place))
    code = process.exitcode
    return Outcome(failure=Failure(f"a process ended with exit code {code}:\n{words}"))


def _lacks_room(outcome: Outcome) -> bool:
    return bool(outcome.split) or any(trial.status in NO_ROOM for trial in outcome.trials)


def _outcome(ended: Sequence[Outcome | None], places: Sequence[Path]) -> Outcome:
    """Of all: a death before what it did to the others, a lack of memory before that too, and of
    failures the first. What the process that says it printed last stands in this one's output."""

    def turn(rank: int) -> tuple[int, int]:
        outcome, path = ended[rank], places[rank] / OUTCOME
        time_ns = path.stat().st_mtime_ns if path.is_file() else 0
        if outcome is None:
            return (4, rank)
        if outcome.exit_signal is not None:
            return (0, rank)
        if _lacks_room(outcome):
            return (1, rank)
        return (3, rank) if outcome.failure is None else (2, time_ns)

    decides = min(range(len(ended)), key=turn)
    if decides > 0:
        print("\n".join(last_lines(places[decides])), flush=True)
    found = ended[decides]
    # Of a process that came to its end while another did not, nothing is kept.
    whole = [one for one in ended if one is not None]
    if found is None or (turn(decides)[0] == 3 and len(whole) < len(ended)):
        return Outcome(failure=Failure("a process did not come to its end with the others"))
    return found
