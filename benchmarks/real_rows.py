"""What training and scoring cost at 135 M parameters, beside bare scripts: each side in the type
that it computes fastest in.
"""

from __future__ import annotations

from functools import cache
from itertools import count

from benchmarks.evaluation_rows import (
    adapter_of,
    largest_gap,
    read_bare_scores,
    read_lorascope_scores,
)
from benchmarks.measure import in_turns, ratios, run, seconds_in_sequence, seconds_side_by_side
from benchmarks.peak_watch import PeakWatch
from benchmarks.real import (
    EVALUATION_BATCH_SIZE,
    MODES,
    REAL_QUICK,
    RealSize,
    RealWorkload,
)
from benchmarks.run_parts import medians, parts_told, trained_parts
from benchmarks.step_workers import BareTrial, Pack, bare_step_worker, step_workers, steps_alone
from benchmarks.table import AT_LEAST, AT_MOST, Row, measured
from benchmarks.workload import QUICK, Workload

COMPUTES = ("float32", "bfloat16")
SHAPE = "Random weights in SmolLM2-135M's shape (49,152 words)"
RANK = 8
_numbers = count()


@cache
def real(workload: Workload) -> RealWorkload:
    """The project beside the small one; made once."""
    size = REAL_QUICK if workload.size == QUICK else RealSize()
    return RealWorkload(workload.folder, size, workload.threads)


@cache
def fastest(own: RealWorkload, mode: str) -> tuple[str, str, str]:
    """(type that lorascope computes fastest in, the bare script's, what was measured) by steps of
    one trial, all threads."""
    with step_workers((own.threads,)) as (worker,), bare_step_worker(own.threads) as bare:
        ours = {one: steps_alone(worker, [_pack(own, mode, one)]) for one in COMPUTES}
        theirs = {one: steps_alone(bare, [_bare(own, mode, one)]) for one in COMPUTES}
    told = ", ".join(f"{one} {ours[one]:.2f} s and bare {theirs[one]:.2f} s" for one in COMPUTES)
    best = min(ours, key=ours.__getitem__), min(theirs, key=theirs.__getitem__)
    return *best, f"A step of one trial: {told}; below each side computes in what is faster."


def real_steps(workload: Workload) -> list[Row]:
    """A lone trial's step against the bare script's."""
    own = real(workload)
    return [_steps_row(own, mode) for mode in MODES]


def _steps_row(own: RealWorkload, mode: str) -> Row:
    ours_in, bare_in, told = fastest(own, mode)
    with step_workers((own.threads,)) as (worker,), bare_step_worker(own.threads) as bare_worker:

        def lorascope(_: int) -> float:
            return steps_alone(worker, [_pack(own, mode, ours_in)])

        def bare(_: int) -> float:
            return steps_alone(bare_worker, [_bare(own, mode, bare_in)])

        ours, alone = in_turns((lorascope, bare), own.size.rounds)
    row = _row(
        own, f"real steps: {mode}", "a step of one trial / of the bare script", AT_MOST, 0.6,
        f"{medians(bare=alone, lorascope=ours)} {told}",
    )  # fmt: skip
    return measured(row, ratios(ours, alone))


def real_sweep(workload: Workload) -> list[Row]:
    """All ranks in one `train-lora -m` against as many bare scripts, all seconds counted."""
    own = real(workload)
    return [row for mode in MODES for row in _sweep_rows(own, mode)]


def _sweep_rows(own: RealWorkload, mode: str) -> list[Row]:
    ours_in, bare_in, told = fastest(own, mode)
    ranks, roots = own.size.ranks, [f"sweep-{mode}-{index}" for index in range(own.size.rounds)]

    def lorascope(index: int) -> float:
        root = own.fresh_project(roots[index])
        words = ("train-lora", "-m", *own.overrides(mode, ranks, ours_in))
        return seconds_in_sequence([own.lorascope(root, *words)])

    def bare(index: int, processes: int) -> float:
        folder = own.folder / f"bare-real-{mode}-{processes}-{index}"
        threads = max(1, own.threads // processes)
        scripts = [own.bare_training(mode, r, bare_in, folder / str(r), threads) for r in ranks]
        if processes == 1:
            return seconds_in_sequence(scripts)
        return seconds_side_by_side(scripts, processes)

    ours, alone, two = in_turns(
        (lorascope, lambda index: bare(index, 1), lambda index: bare(index, 2)), own.size.rounds
    )
    parts = parts_told(trained_parts(own.folder / roots[-1], mode=mode), ours[-1])
    note = f"Lorascope's last round: {parts} {told}"
    compared = f"{len(ranks)} ranks ({ranks[0]} to {ranks[-1]}): bare scripts / `train-lora -m`"

    def row(side: str, goal: float, seconds: list[float]) -> Row:
        made = _row(
            own, f"real sweep: {mode}, {side}", compared, AT_LEAST, goal,
            f"{medians(bare=seconds, lorascope=ours)} {note}",
        )  # fmt: skip
        return measured(made, ratios(seconds, ours))

    return [row("one after the other", 2.5, alone), row("two side by side", 1.3, two)]


def real_memory(workload: Workload) -> list[Row]:
    """The largest resident memory of any process of a lone trial, against the bare script's."""
    own, rows = real(workload), []
    for mode in MODES:
        ours_in, bare_in, _ = fastest(own, mode)
        root = own.fresh_project(f"memory-{mode}")
        words = ("train-lora", "-m", *own.overrides(mode, (RANK,), ours_in))
        bare = own.bare_training(
            mode, RANK, bare_in, own.folder / f"bare-memory-{mode}", own.threads
        )
        peaks = []
        for command in (own.lorascope(root, *words), bare):
            watch = PeakWatch()
            run(command, watch.start)
            peaks.append(watch.peak_bytes())
        row = _row(
            own, f"real memory: {mode}", "peak of `train-lora -m`, one trial / of the bare script",
            AT_MOST, 0.6, f"Peaks, validation included: lorascope {peaks[0] / 1e9:.2f} GB, bare, "
            f"which does not validate, {peaks[1] / 1e9:.2f} GB.",
        )  # fmt: skip
        rows.append(measured(row, ratios([float(peaks[0])], [float(peaks[1])])))
    return rows


def real_evaluation(workload: Workload) -> list[Row]:
    """One `evaluate -m` of all ranks against an lm-eval run each, both in FP32."""
    own = real(workload)
    return [row for mode in MODES for row in _evaluation_rows(own, mode)]


def _evaluation_rows(own: RealWorkload, mode: str) -> list[Row]:
    ranks = own.size.ranks
    declared = own.overrides(mode, ranks, "float32")
    trained = own.fresh_project(f"trained-{mode}")
    # Scores of adapters that learnt nothing take as long.
    run(own.lorascope(trained, "train-lora", "-m", *declared, "train.steps=1"))

    def lorascope(index: int) -> float:
        root = own.fresh_project(f"scored-{mode}-{index}")
        (root / "experiments").mkdir()
        (root / "experiments" / "train").symlink_to(trained / "experiments" / "train")
        # As the baseline scores: in its batches, and nothing is written in answer.
        alike = (f"evaluate.batch_size={EVALUATION_BATCH_SIZE}", "evaluate.examples=0")
        command = own.lorascope(root, "evaluate", "-m", *declared, "train.steps=1", *alike)
        return seconds_in_sequence([command])

    def scores(index: int, rank: int) -> str:
        return f"real-scores-{mode}-{index}-{rank}.jsonl"

    def bare(index: int) -> float:
        return seconds_in_sequence(
            [
                own.bare_evaluation(
                    mode, adapter_of(trained, rank, mode), own.folder / scores(index, rank)
                )
                for rank in ranks
            ]
        )

    ours, alone = in_turns((lorascope, bare), own.size.rounds)
    gaps = [
        largest_gap(
            read_bare_scores(own.folder / scores(index, rank)),
            read_lorascope_scores(own.folder / f"scored-{mode}-{index}", rank, mode),
        )
        for index in range(own.size.rounds)
        for rank in ranks
    ]
    compared = f"{len(ranks)} adapters on {own.size.items} items"
    speed = _row(
        own, f"real evaluation: {mode}, seconds", f"{compared}: lm-eval runs / `evaluate -m`",
        AT_LEAST, 3.0, f"{medians(bare=alone, lorascope=ours)} lorascope scores the validation "
        "items and the bare base too.",
    )  # fmt: skip
    agreement = Row(
        f"real evaluation: {mode}, scores",
        "largest difference of an item's log-likelihood (absolute)", AT_MOST, 1e-4, "nats",
        value=max(gaps), lowest=min(gaps), highest=max(gaps), runs=len(gaps), workload=SHAPE + ".",
    )  # fmt: skip
    return [measured(speed, ratios(alone, ours)), agreement]


def _pack(own: RealWorkload, mode: str, compute: str) -> Pack:
    return Pack(own.prepared, own.overrides(mode, (RANK,), compute), own.size.timed_steps)


def _bare(own: RealWorkload, mode: str, compute: str) -> BareTrial:
    output = own.folder / f"bare-steps-{next(_numbers)}"
    command = own.bare_training(mode, RANK, compute, output, own.threads)
    # Without interpreter and script.
    return BareTrial(command.words[2:], own.size.timed_steps)


def _row(own: RealWorkload, name: str, compared: str, bound: str, goal: float, note: str) -> Row:
    return Row(
        name, compared, bound, goal, "x", note=note,
        workload=f"{SHAPE}, all linear layers, {own.size.steps} steps of {own.size.batch} rows of "
        "100 to 500 tokens, a fifth of them trained.",
        threads=f"Threads: {own.threads} on either side; two scripts at a time share them.",
    )  # fmt: skip
