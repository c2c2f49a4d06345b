"""Packs side by side on a CPU: products of small models gain little from a second thread, and a
second pack gains all of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from lorascope.config import Config, DeviceKind, RuntimeConfig
from lorascope.execution.local.process import end_fork_server, start_imports
from lorascope.machine.ram import available_ram_bytes
from lorascope.planning.arithmetic import GIGABYTE

PRELOADED = "lorascope.execution.local.preloaded"
"""What the children that train need, imported once."""

FEWEST_TRIALS = 2
"""In each of several packs: below that nothing is shared."""

GPU_FILES = ("nvidia[0-9]*", "dxg", "kfd")

P = TypeVar("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Lane:
    """What one of the packs that are trained at the same time may use."""

    threads: int
    """0 leaves torch's choice."""
    memory_bytes: int | None
    """At most; None where the pack is the only one, and takes what there is."""


@contextmanager
def training_imports() -> Iterator[None]:
    """Begin to import what the children that train need, where they are forked: with CUDA each
    imports it itself. The fork server ends with the block."""
    try:
        if not may_use_cuda(DeviceKind.auto):
            start_imports(PRELOADED)
        yield
    finally:
        end_fork_server()


def may_use_cuda(wanted: DeviceKind) -> bool:
    """Whether torch may find CUDA, without importing torch: device files of a driver say so, of
    NVIDIA's, of WSL's or of ROCm's, which torch calls CUDA too."""
    found = any(path for name in GPU_FILES for path in Path("/dev").glob(name))
    return wanted is DeviceKind.cuda or (wanted is DeviceKind.auto and found)


def lane_count(configs: Sequence[Config]) -> int:
    """How many packs of a sweep that declares `configs` are trained at the same time.

    It follows from what is declared, not from what is missing: numbers depend on the threads, if
    only by rounding, and a sweep that goes on must end as if it had not stopped.
    """
    runtime = configs[0].runtime
    if may_use_cuda(runtime.device):
        return 1
    threads = _threads(runtime)
    most = min(threads, runtime.packs_at_once or threads)
    return max(1, min(most, len(configs) // FEWEST_TRIALS))


def lane_of(runtime: RuntimeConfig, count: int) -> Lane:
    """Each of `count` lanes. Call it before the first pack starts, which takes memory itself."""
    if count == 1:
        return Lane(runtime.threads, None)
    limit_gb = runtime.memory_limit_gb
    whole = available_ram_bytes() if limit_gb is None else limit_gb * GIGABYTE
    return Lane(max(1, _threads(runtime) // count), int(whole / count))


def _threads(runtime: RuntimeConfig) -> int:
    """About those that torch would take, without importing it."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if runtime.threads:
        return runtime.threads
    if told.isdigit() and int(told):
        return int(told)
    # What this process may use; not every system can say it.
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def in_lanes(packs: Sequence[P], count: int, work: Callable[[P, Connection], T]) -> list[T]:
    """`work(pack, end_now)` for each pack, `count` of them at a time; results in the same order.

    Where one raises, those at hand are waited for, no others are started, and its exception is
    raised. What interrupts this call itself, such as Ctrl-C, makes `end_now` readable: work must
    clean up and return at once.
    """
    with _pipe() as (end_now, ending), ThreadPoolExecutor(count) as pool:
        try:
            futures = [pool.submit(work, pack, end_now) for pack in packs]
            _, left = wait(futures, return_when=FIRST_EXCEPTION)
            for future in left:
                future.cancel()
            wait(left)
        except BaseException:
            # In this order: whoever ends at once must find nothing to go on with.
            pool.shutdown(wait=False, cancel_futures=True)
            ending.close()
            raise
    failed = [error for f in futures if not f.cancelled() and (error := f.exception())]
    for error in failed[1:]:
        if isinstance(error, Exception):
            print(f"lorascope: {error}", file=sys.stderr, flush=True)
    if failed:
        raise failed[0]
    return [future.result() for future in futures]


@contextmanager
def _pipe() -> Iterator[tuple[Connection, Connection]]:
    reader, writer = Pipe(duplex=False)
    try:
        yield reader, writer
    finally:
        reader.close()
        writer.close()
