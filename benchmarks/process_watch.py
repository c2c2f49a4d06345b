"""A sweep watched from outside: when its packs ran, and what its own process used meanwhile.

Linux tells it of any process under /proc. lorascope's process starts a fork server, which starts a
child for each pack; nothing in lorascope is changed or asked.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import BenchmarkError

PROC = Path("/proc")
INTERVAL_SECONDS = 0.05
SHORTEST_PACK_SECONDS = 0.5
"""A child that lives shorter trains nothing: the fork server is asked once whether it is ready."""
FORK_SERVER = b"multiprocessing.forkserver"


@dataclass(frozen=True)
class Sample:
    """What was seen at one time."""

    seconds: float
    """Of this process's clock."""
    packs: frozenset[int]
    """Numbers of the processes that train."""
    parent_cpu_seconds: float
    """That the sweep's own process has used until then, its children left out."""


@dataclass(frozen=True)
class Scheduling:
    """What a sweep's scheduler cost, between the first pack's start and the last one's end."""

    window_seconds: float
    before_seconds: float
    """From the process's start to the first pack's: imports, and all trials judged and declared."""
    pack_seconds: float
    """Summed over packs."""
    parent_cpu_seconds: float
    """In the window."""
    whole_cpu_seconds: float
    """Of the sweep's own process, before and after included."""
    left_at_end: tuple[float, ...]
    """Seconds of the window that were left when each pack ended, ascending."""

    def overhead_percent(self, lanes: int) -> float:
        """Share of the lanes' time, in percent, that was not the packs': lanes without a pack, and
        CPU that the sweep's own process took beside them. Where it worked while a lane was empty
        that counts twice: it is an upper bound."""
        unused = self.empty_seconds(lanes) + self.parent_cpu_seconds
        return 100 * unused / (lanes * self.window_seconds)

    def empty_seconds(self, lanes: int) -> float:
        """Lane seconds without a pack."""
        return max(0.0, lanes * self.window_seconds - self.pack_seconds)

    def tail_seconds(self, lanes: int) -> float:
        """Those at the end, where a lane has no pack left."""
        return sum(self.left_at_end[:lanes])


def scheduling(samples: Sequence[Sample], started: float) -> Scheduling:
    """Sum up what was seen of a sweep whose process was started at `started`.

    Raises:
        BenchmarkError: no pack was seen.
    """
    seen: dict[int, tuple[float, float]] = {}
    for sample in samples:
        for process in sample.packs:
            seen[process] = (seen.get(process, (sample.seconds, 0.0))[0], sample.seconds)
    packs = [(a, b) for a, b in seen.values() if b - a >= SHORTEST_PACK_SECONDS]
    if not packs:
        raise BenchmarkError("no pack was seen under /proc while the sweep ran")
    first, last = min(start for start, _ in packs), max(end for _, end in packs)
    inside = [sample for sample in samples if first <= sample.seconds <= last]
    return Scheduling(
        window_seconds=last - first,
        before_seconds=first - started,
        pack_seconds=sum(end - start for start, end in packs),
        parent_cpu_seconds=inside[-1].parent_cpu_seconds - inside[0].parent_cpu_seconds,
        whole_cpu_seconds=samples[-1].parent_cpu_seconds,
        left_at_end=tuple(sorted(last - end for _, end in packs)),
    )


@dataclass
class ProcessWatch:
    """Looks at a sweep's process until it ends."""

    started: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    _thread: threading.Thread | None = None

    def start(self, process: int) -> None:
        """Watch in a thread: what `measure.run` calls with the number of the process."""
        self.started = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, args=(process,), daemon=True)
        self._thread.start()

    def result(self) -> Scheduling:
        """After the process has ended."""
        if self._thread is not None:
            self._thread.join()
        return scheduling(self.samples, self.started)

    def _watch(self, process: int) -> None:
        server = None
        while True:
            try:
                server = server or _fork_server(process)
                packs = frozenset(_children(server)) if server else frozenset[int]()
                used = _cpu_seconds(process)
            except (FileNotFoundError, ProcessLookupError):
                # The sweep has ended.
                return
            self.samples.append(Sample(time.perf_counter(), packs, used))
            time.sleep(INTERVAL_SECONDS)


def _fork_server(process: int) -> int | None:
    for child in _children(process):
        if FORK_SERVER in (PROC / str(child) / "cmdline").read_bytes():
            return child
    return None


def _children(process: int) -> list[int]:
    """Started by any of its threads."""
    tasks = (PROC / str(process) / "task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _cpu_seconds(process: int) -> float:
    """User and system time of a process and its threads, not of its children (proc(5): the 14th
    and 15th field of stat; the second, a name in brackets, may hold spaces)."""
    fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
