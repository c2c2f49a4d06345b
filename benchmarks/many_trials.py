"""Two hundred trials in one sweep: whether all are there, and what the scheduler cost."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from benchmarks.measure import run
from benchmarks.process_watch import ProcessWatch, Scheduling
from benchmarks.table import AT_LEAST, AT_MOST, Row
from benchmarks.workload import ALPHA, BATCH_SIZE, MODE, Workload

RANKS = tuple(range(1, 9))
LANES = 2
"""Packs that lorascope trains side by side with as many threads."""


def many_trials(workload: Workload) -> list[Row]:
    """One `train-lora -m` over ranks and seeds, watched from outside."""
    root = workload.fresh_project("many-trials")
    size = workload.size
    seeds = range(size.many_seeds)
    declared = len(RANKS) * len(seeds)
    command = workload.lorascope(
        root, "train-lora", "-m", "model=bench", "data=bench", "train=bench", f"quant={MODE}",
        f"lora.alpha={ALPHA}", f"lora.rank={','.join(str(rank) for rank in RANKS)}",
        f"seed={','.join(str(seed) for seed in seeds)}", f"train.steps={size.stored_steps}",
        "runtime.tracking=false", f"runtime.packs_at_once={LANES}",
    )  # fmt: skip
    watch = ProcessWatch()
    started = time.perf_counter()
    run(command, watch.start)
    wall = time.perf_counter() - started
    return _rows(workload, declared, statuses(root), watch.result(), wall)


def statuses(root: Path) -> Counter[str]:
    """How many trials ended in which way, by their records."""
    records = (root / "experiments" / "train" / MODE).glob("*/record.json")
    return Counter(json.loads(path.read_text(encoding="utf-8"))["status"] for path in records)


def _rows(
    workload: Workload, declared: int, found: Counter[str], seen: Scheduling, wall: float
) -> list[Row]:
    what = (
        f"Llama of 0.7 M parameters, {MODE}, all linear layers, ranks {RANKS[0]} to {RANKS[-1]} x "
        f"{workload.size.many_seeds} seeds, {workload.size.stored_steps} steps of {BATCH_SIZE} "
        "samples of about 32 tokens."
    )
    threads = f"Threads: lorascope {workload.threads}."
    lanes = min(LANES, workload.threads)
    completed, overhead = found["completed"], seen.overhead_percent(lanes)
    told = ", ".join(f"{count} {status}" for status, count in sorted(found.items()))
    trials = Row(
        "many trials: completed", f"trials of {declared} that one sweep completes (absolute)",
        AT_LEAST, declared, "trials", completed, completed, completed, 1, what, threads,
        note=f"Records: {told}. The whole sweep took {wall:.1f} s.",
    )  # fmt: skip
    scheduler = Row(
        "many trials: scheduling", "share of the packs' time that is not theirs (absolute)",
        AT_MOST, 2.0, "%", overhead, overhead, overhead, 1, what, threads,
        note=_definition(seen, lanes, wall), reason=_reason(seen, lanes),
    )  # fmt: skip
    return [trials, scheduler]


def _definition(seen: Scheduling, lanes: int, wall: float) -> str:
    share = 100 * seen.pack_seconds / (lanes * wall)
    empty, window = seen.empty_seconds(lanes), seen.window_seconds
    return (
        "Watched under /proc from outside: between the first pack's start and the last one's end, "
        f"{window:.1f} s, {lanes} lanes were without a pack for {empty:.1f} lane seconds, and the "
        f"sweep's own process used {seen.parent_cpu_seconds:.1f} s of CPU; both, over {lanes} x "
        f"{window:.1f} s. Left out: {seen.before_seconds:.1f} s before the first pack, in which "
        "the sweep is judged and declared and libraries are imported, once whatever the steps "
        f"(in all the sweep's own process used {seen.whole_cpu_seconds:.1f} s of CPU). Of all "
        f"{lanes} x {wall:.1f} s of the sweep packs had {share:.0f} %; a pack's time includes "
        "loading, validation and memory predictions."
    )


def _reason(seen: Scheduling, lanes: int) -> str:
    """What was measured of it; the parts need not sum up: packs start and end between two looks."""
    tail = seen.tail_seconds(lanes)
    between = max(0.0, seen.empty_seconds(lanes) - tail)
    return (
        f"of the lanes' empty seconds {tail:.1f} lie at the end, where one lane has no pack left, "
        f"and {between:.1f} between packs, where one is prepared or its trials are put in place."
    )
