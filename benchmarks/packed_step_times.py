"""Seconds of packed steps, of their trials' steps alone, and of the bare script's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Ratios, in_turns, ratios
from benchmarks.step_workers import (
    BareTrial,
    Pack,
    StepWorker,
    bare_step_worker,
    step_workers,
    steps_alone,
    steps_side_by_side,
)
from benchmarks.workload import ALPHA, MODE, RANKS, Workload

TRIALS, RANK = 8, 16
TOKENS_A_SAMPLE = 32
CORES = 2
"""What both sides get. A step of the small model alone is slower on two threads than on one."""
LANES = 2
"""Packs that lorascope trains side by side on so many cores, a thread each."""

AT_PEAK = (
    "half of a packed step of this size are matrix products at the processor's peak rate, which "
    "packing does not reduce, while a lone step is mostly calls: the faster a processor is at "
    "calls, the less packing gains (docs/log.md, 2026-11-25). Samples of eight seeds are padded to "
    "the longest of the eight, 37 tokens instead of 33 (2026-11-26)."
)
TOO_LARGE = (
    "at this size arithmetic bounds a step, which packing does not reduce, and a batch of eight "
    "trials no longer fits the cache (docs/log.md, 2026-11-24)."
)


@dataclass(frozen=True)
class Point:
    """One comparison: trials of one size."""

    trials: str
    samples: int
    """A trial and step."""
    steps: int
    """Timed in each round: some seconds a side."""
    goal: float | None
    sweep: tuple[tuple[str, ...], ...]
    """The overrides of each trial."""
    reason: str = ""

    @property
    def tokens(self) -> int:
        """A trial and step, about."""
        return self.samples * TOKENS_A_SAMPLE


EQUAL = tuple((f"lora.rank={RANK}", f"seed={seed}") for seed in range(TRIALS))
MIXED = tuple((f"lora.rank={rank}", "seed=0") for rank in RANKS)
ALIKE = f"{TRIALS} trials of rank {RANK}"
SIZES = (
    Point(ALIKE, 1, 40, 4.0, EQUAL, AT_PEAK),
    Point(ALIKE, 2, 40, None, EQUAL),
    Point(ALIKE, 8, 20, 1.4, EQUAL, TOO_LARGE),
    Point(ALIKE, 32, 6, None, EQUAL),
)
RANKS_MIXED = Point(f"{TRIALS} ranks, 1 to 128", 8, 20, 1.4, MIXED, TOO_LARGE)


@dataclass(frozen=True)
class Times:
    """Seconds of one step of all trials of a point, by round."""

    alone: list[float]
    """One after the other on one thread."""
    packed: list[float]
    """As one pack on two threads."""
    lanes: list[float]
    """As two packs side by side, a thread each; empty where that was not measured."""
    bare: list[float]
    """As bare scripts, one after the other on one thread; empty where there is no goal."""

    @property
    def gain(self) -> Ratios:
        """Of one pack over the trials alone."""
        return ratios(self.alone, self.packed)

    @property
    def gain_in_lanes(self) -> Ratios:
        """Of packs side by side over two lone processes at a time, which take half of one after
        the other at best."""
        return ratios([seconds / LANES for seconds in self.alone], self.lanes)


def measured_times(workload: Workload, points: Sequence[Point]) -> list[Times]:
    """Of each point, all sides in turns."""
    root = workload.fresh_project("packed-steps")
    with step_workers((1, 1, CORES)) as workers, bare_step_worker(1) as bare:
        return [
            _times(workload, point, _packing(root, point), [*workers, bare]) for point in points
        ]


def _bare_trials(workload: Workload, point: Point) -> list[BareTrial]:
    """The same trials for the bare script."""
    folder = workload.folder / "bare-steps"
    trials = []
    for rank, seed in ([value.partition("=")[2] for value in own] for own in point.sweep):
        command = workload.bare_training(folder, int(rank), int(seed), point.samples)
        # Without interpreter and script.
        trials.append(BareTrial(command.words[2:], point.steps))
    return trials


def _packing(root: Path, point: Point) -> Callable[[Sequence[int]], Pack]:
    """Makes a pack of the trials with these numbers."""
    shared = (
        "model=bench", "data=bench", "train=bench", f"quant={MODE}", f"lora.alpha={ALPHA}",
        f"train.batch_size={point.samples}", f"train.micro_batch_size={point.samples}",
    )  # fmt: skip

    def pack(numbers: Sequence[int]) -> Pack:
        # Ranks and seeds are axes: trials of one pack differ in one of the two.
        return Pack(root, (*shared, *_axes([point.sweep[n] for n in numbers])), point.steps)

    return pack


def _axes(trials: Sequence[tuple[str, ...]]) -> list[str]:
    """One override a key, with all the values that the trials give it."""
    values: dict[str, dict[str, None]] = {}
    for key, _, value in (override.partition("=") for trial in trials for override in trial):
        values.setdefault(key, {})[value] = None
    return [f"{key}={','.join(own)}" for key, own in values.items()]


def _times(
    workload: Workload,
    point: Point,
    pack: Callable[[Sequence[int]], Pack],
    workers: Sequence[StepWorker],
) -> Times:
    first, second, both, bare_worker = workers
    everyone = range(len(point.sweep))
    half = len(everyone) // LANES

    def alone(_: int) -> float:
        return steps_alone(first, [pack([number]) for number in everyone])

    def packed(_: int) -> float:
        return steps_alone(both, [pack(everyone)])

    def lanes(_: int) -> float:
        return steps_side_by_side((first, second), [pack(everyone[:half]), pack(everyone[half:])])

    def bare(_: int) -> float:
        return steps_alone(bare_worker, _bare_trials(workload, point))

    sides = {"alone": alone, "packed": packed}
    if point.sweep is EQUAL:
        # Two packs of other ranks take other times: lorascope would not halve them by number.
        sides["lanes"] = lanes
    if point.goal:
        sides["bare"] = bare
    seconds = in_turns(tuple(sides.values()), workload.size.short_rounds)
    return Times(**{"lanes": [], "bare": [], **dict(zip(sides, seconds, strict=True))})
