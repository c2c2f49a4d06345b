"""A packed step against the steps of its trials alone, and up to what size packing pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.break_even import break_even_tokens, told
from benchmarks.measure import Ratios, in_turns, ratios
from benchmarks.step_workers import Pack, StepWorker, step_workers, steps_alone, steps_side_by_side
from benchmarks.table import AT_LEAST, Row, measured
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
    "calls, the less packing gains (docs/log.md, 2026-11-25)."
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

    @property
    def gain(self) -> Ratios:
        """Of one pack over the trials alone."""
        return ratios(self.alone, self.packed)

    @property
    def gain_in_lanes(self) -> Ratios:
        """Of packs side by side over two lone processes at a time, which take half of one after
        the other at best."""
        return ratios([seconds / LANES for seconds in self.alone], self.lanes)


def packed_steps(workload: Workload) -> list[Row]:
    """Eight trials of one rank at 32 to 1024 tokens a trial, eight ranks at 256, break-even."""
    root = workload.fresh_project("packed-steps")
    with step_workers((1, 1, CORES)) as workers:

        def times_of(point: Point) -> Times:
            fewer = replace(point, steps=min(point.steps, workload.size.steps))
            return _times(fewer, workers, workload.size.short_rounds, _packing(root, fewer))

        times = [times_of(point) for point in SIZES]
        mixed = times_of(RANKS_MIXED)
    rows = [_row(point, own) for point, own in zip(SIZES, times, strict=True)]
    return [*rows, _row(RANKS_MIXED, mixed), *_break_even_rows(times)]


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
    point: Point,
    workers: Sequence[StepWorker],
    rounds: int,
    pack: Callable[[Sequence[int]], Pack],
) -> Times:
    first, second, both = workers
    everyone = range(len(point.sweep))
    half = len(everyone) // LANES

    def alone(_: int) -> float:
        return steps_alone(first, [pack([number]) for number in everyone])

    def packed(_: int) -> float:
        return steps_alone(both, [pack(everyone)])

    def lanes(_: int) -> float:
        return steps_side_by_side((first, second), [pack(everyone[:half]), pack(everyone[half:])])

    if point.sweep is not EQUAL:
        # Two packs of other ranks take other times: lorascope would not halve them by number.
        one_by_one, together = in_turns((alone, packed), rounds)
        return Times(one_by_one, together, [])
    one_by_one, together, apart = in_turns((alone, packed, lanes), rounds)
    return Times(one_by_one, together, apart)


def _row(point: Point, times: Times) -> Row:
    row = Row(
        f"packed steps: {point.trials}, {point.tokens} tokens",
        f"steps of {TRIALS} trials alone, summed / one packed step", AT_LEAST, point.goal, "x",
        workload=f"Llama of 0.7 M parameters, {MODE}, all linear layers, {point.trials}, steps of "
        f"{point.samples} samples of about {TOKENS_A_SAMPLE} tokens a trial.",
        threads=f"Threads: packed {CORES}, alone 1.",
        note=f"Medians of a step of all trials: {_milliseconds(times)}",
        reason=point.reason,
    )  # fmt: skip
    return measured(row, times.gain)


def _milliseconds(times: Times) -> str:
    alone, packed = 1000 * median(times.alone), 1000 * median(times.packed)
    told = f"alone {alone:.0f} ms one after the other, and two processes at a time half of that "
    told += f"({alone / LANES:.0f} ms) at best; one pack {packed:.0f} ms"
    if not times.lanes:
        return f"{told}."
    return (
        f"{told}; as lorascope trains them by default on {CORES} cores, two packs of four side by "
        f"side with a thread each, {1000 * median(times.lanes):.0f} ms, which is "
        f"{median(ratios(times.alone, times.lanes).values):.2f} times faster than one after the "
        f"other and {times.gain_in_lanes.middle:.2f} times than two at a time."
    )


def _break_even_rows(times: Sequence[Times]) -> list[Row]:
    pack = "one pack on two threads against its trials one after the other on one thread"
    lanes = "two packs side by side against half of the trials' time one after the other"
    return [
        _break_even("one pack", pack, [own.gain for own in times]),
        _break_even("default on two cores", lanes, [own.gain_in_lanes for own in times]),
    ]


def _break_even(name: str, compared: str, gains: Sequence[Ratios]) -> Row:
    """Of each round its own; the words are about the medians."""
    sizes = [point.tokens for point in SIZES]
    rounds = zip(*(gain.values for gain in gains), strict=True)
    values = tuple(break_even_tokens(list(zip(sizes, own, strict=True))) for own in rounds)
    points = list(zip(sizes, (gain.middle for gain in gains), strict=True))
    ratios_told = ", ".join(f"{ratio:.2f} at {tokens}" for tokens, ratio in points)
    row = Row(
        f"packed steps: break-even, {name}",
        "tokens a trial and step up to which packing pays (absolute)", AT_LEAST, None, "tokens",
        workload=f"{ALIKE}, as above: {compared}.",
        note=f"{told(break_even_tokens(points), points)} Ratios: {ratios_told}.",
    )  # fmt: skip
    return measured(row, Ratios(values))
