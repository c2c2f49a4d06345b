"""What a tracked run and one more rank cost, beside the bare script."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.measure import in_turns, ratios, run, seconds_in_sequence
from benchmarks.run_parts import imports_told, medians, parts_told, trained_parts
from benchmarks.table import AT_MOST, Row, measured
from benchmarks.workload import BATCH_SIZE, MODE, Workload

TRACKED_REASON = (
    "a tracked run validates its adapter, predicts its memory and fills a store, which the bare "
    "script does not (parts above; what MLflow and predictions take is in all else)."
)


def tracked_run(workload: Workload) -> list[Row]:
    """One tracked trial in a store that is there, against one bare script. Making the store takes
    MLflow some seconds, once a project: a note."""
    root = workload.fresh_project("tracked")
    first = seconds_in_sequence([workload.train(root, (8,), seed=1000, tracking=True)])

    def lorascope(index: int) -> float:
        return seconds_in_sequence([workload.train(root, (8,), seed=index, tracking=True)])

    def bare(index: int) -> float:
        folder = workload.folder / f"bare-tracked-{index}"
        return seconds_in_sequence([workload.bare_training(folder, 8, seed=index)])

    ours, alone = in_turns((lorascope, bare), workload.size.short_rounds)
    row = Row(
        "tracked run", "one trial: `train-lora -m`, tracking on / bare script", AT_MOST, 1.05, "x",
        note=f"{medians(bare=alone, lorascope=ours)} The first run of a project, which makes the "
        f"MLflow store, took {first:.1f} s. The last one: "
        f"{parts_told(trained_parts(root, f'*-s{workload.size.short_rounds - 1}-*'), ours[-1])} "
        f"{imports_told(workload)}",
        reason=TRACKED_REASON,
    )  # fmt: skip
    return [measured(_described(row, workload, workload.size.steps), ratios(ours, alone))]


def added_rank(workload: Workload) -> list[Row]:
    """One more rank where a sweep is there, against that trial alone in an empty store."""
    size = workload.size
    there = tuple(range(1, size.stored_trials + 1))
    full = workload.fresh_project("sweep-with-one-more")
    run(workload.train(full, there, size.stored_steps))

    def one_more(index: int) -> float:
        added = tuple(size.stored_trials + 1 + extra for extra in range(index + 1))
        return seconds_in_sequence([workload.train(full, there + added, size.stored_steps)])

    def alone(index: int) -> float:
        root = workload.fresh_project(f"single-{index}")
        rank = size.stored_trials + 1 + index
        return seconds_in_sequence([workload.train(root, (rank,), size.stored_steps)])

    more, single = in_turns((one_more, alone), size.rounds)
    row = Row(
        "added rank", f"one more rank beside {len(there)} trials / that trial alone, empty store",
        AT_MOST, 1.15, "x", note=medians(added=more, alone=single),
    )  # fmt: skip
    return [measured(_described(row, workload, size.stored_steps), ratios(more, single))]


def tracking_share(workload: Workload) -> list[Row]:
    """Training seconds of a trial's steps by its own record: tracking on against off."""
    steps, root = workload.size.long_steps, workload.fresh_project("tracking-share")
    # Makes the store: no measured run pays for it.
    run(workload.train(root, (8,), 1, seed=1000, tracking=True))
    walls: dict[bool, list[float]] = {True: [], False: []}

    def side(tracking: bool, index: int) -> float:
        # Of its own for each run: a trial that is there would not be trained again.
        seed = 2 * index + tracking
        command = workload.train(root, (8,), steps, seed=seed, tracking=tracking)
        walls[tracking].append(seconds_in_sequence([command]))
        return train_seconds(root, seed)

    on, off = in_turns(
        (lambda index: side(True, index), lambda index: side(False, index)),
        workload.size.short_rounds,
    )
    row = Row(
        "tracking share", "seconds of the steps: tracking on / off", AT_MOST, 1.02, "x",
        note=f"{medians(on=on, off=off)} Of whole processes: "
        f"on {median(walls[True]):.1f} s, off {median(walls[False]):.1f} s.",
    )  # fmt: skip
    return [measured(_described(row, workload, steps), ratios(on, off))]


def train_seconds(root: Path, seed: int) -> float:
    """What the record of the only trial of this seed says its steps took."""
    (folder,) = (root / "experiments" / "train" / MODE).glob(f"*-s{seed}-*")
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return float(record["result"]["train_seconds"])


def _described(row: Row, workload: Workload, steps: int) -> Row:
    return replace(
        row,
        workload=f"Llama of 0.7 M parameters, {MODE}, all linear layers, {steps} steps of "
        f"{BATCH_SIZE} samples of about 32 tokens.",
        threads=f"Threads: lorascope {workload.threads}, bare {workload.bare_threads}.",
    )
