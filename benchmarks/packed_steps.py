"""A packed step against the steps of its trials alone, in lorascope and in bare scripts, and up to
what size packing pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from benchmarks.break_even import break_even_tokens, told
from benchmarks.measure import Ratios, ratios
from benchmarks.packed_step_times import (
    ALIKE,
    CORES,
    LANES,
    RANKS_MIXED,
    SIZES,
    TOKENS_A_SAMPLE,
    TRIALS,
    Point,
    Times,
    measured_times,
)
from benchmarks.table import AT_LEAST, Row, measured
from benchmarks.workload import MODE, Workload


def packed_steps(workload: Workload) -> list[Row]:
    """Eight trials of one rank at 32 to 1024 tokens a trial, eight ranks at 256, break-even."""
    steps = workload.size.steps
    points = [replace(point, steps=min(point.steps, steps)) for point in (*SIZES, RANKS_MIXED)]
    paired = list(zip(points, measured_times(workload, points), strict=True))
    bare_rows = [_bare_row(point, times) for point, times in paired if times.bare]
    rows = [_row(point, times) for point, times in paired]
    return [*bare_rows, *rows, *_break_even_rows([times for _, times in paired[: len(SIZES)]])]


def _bare_row(point: Point, times: Times) -> Row:
    bare, packed = 1000 * median(times.bare), 1000 * median(times.packed)
    return measured(
        Row(
            f"packed steps: {point.trials}, {point.tokens} tokens, bare",
            f"steps of {TRIALS} bare scripts, summed / one packed step", AT_LEAST, point.goal, "x",
            workload=_workload(point),
            threads=f"Threads: packed {CORES}, bare 1.",
            note=f"Medians of a step of all trials: bare {bare:.0f} ms one after the other, and "
            f"two processes at a time half of that ({bare / LANES:.0f} ms) at best; one pack "
            f"{packed:.0f} ms. The bare script's own steps, without its imports and loading: the "
            "baseline of all goals. The rows below compare with lorascope's own lone steps.",
            reason=point.reason,
        ),
        ratios(times.bare, times.packed),
    )  # fmt: skip


def _workload(point: Point) -> str:
    return (
        f"Llama of 0.7 M parameters, {MODE}, all linear layers, {point.trials}, steps of "
        f"{point.samples} samples of about {TOKENS_A_SAMPLE} tokens a trial."
    )


def _row(point: Point, times: Times) -> Row:
    row = Row(
        f"packed steps: {point.trials}, {point.tokens} tokens",
        f"steps of {TRIALS} trials alone, summed / one packed step", AT_LEAST, point.goal, "x",
        workload=_workload(point),
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
