"""A packed step against the steps of its trials alone, by what the records say their steps took."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.measure import in_turns, ratios, run
from benchmarks.table import AT_LEAST, Row, measured
from benchmarks.workload import ALPHA, MODE, RANKS, Workload

TRIALS, RANK = 8, 16
TOKENS_A_SAMPLE = 32
CORES = 2
"""What a pack gets. A step of the small model alone is slower on two threads than on one."""


def packed_steps(workload: Workload) -> list[Row]:
    """Eight trials of one rank at 256 and at 32 tokens a trial, and eight ranks at 256."""
    seeds = f"seed={','.join(str(seed) for seed in range(TRIALS))}"
    mixed = f"lora.rank={','.join(str(rank) for rank in RANKS)}"
    return [
        _row(workload, f"{TRIALS} trials of rank {RANK}", 8, 1.4, (f"lora.rank={RANK}", seeds)),
        _row(workload, f"{TRIALS} trials of rank {RANK}", 1, 4.0, (f"lora.rank={RANK}", seeds)),
        _row(workload, f"{TRIALS} ranks, 1 to 128", 8, 1.4, (mixed, "seed=0")),
    ]


def _row(workload: Workload, trials: str, samples: int, goal: float, sweep: tuple[str, ...]) -> Row:
    tokens, steps = samples * TOKENS_A_SAMPLE, workload.size.steps
    name = f"packed steps: {trials}, {tokens} tokens"

    def side(pack_trials: int, threads: int, index: int) -> float:
        folder = f"{name}-{pack_trials}-{index}".replace(" ", "-").replace(":", "")
        root = workload.fresh_project(folder)
        command = replace(workload, threads=threads).lorascope(
            root, "train-lora", "-m", "model=bench", "data=bench", "train=bench", f"quant={MODE}",
            f"lora.alpha={ALPHA}", f"train.steps={steps}", f"train.batch_size={samples}",
            f"train.micro_batch_size={samples}", f"runtime.pack_trials={pack_trials}",
            "runtime.tracking=false", *sweep,
        )  # fmt: skip
        run(command)
        return step_seconds(root, steps, together=pack_trials > 1)

    alone, packed = in_turns(
        (lambda index: side(1, 1, index), lambda index: side(TRIALS, CORES, index)),
        workload.size.rounds,
    )
    times = f"alone {1000 * median(alone):.0f} ms, packed {1000 * median(packed):.0f} ms"
    row = Row(
        name, f"steps of {TRIALS} trials alone, summed / one packed step", AT_LEAST, goal, "x",
        workload=f"Llama of 0.7 M parameters, {MODE}, all linear layers, {trials}, {steps} steps "
        f"of {samples} samples of about {TOKENS_A_SAMPLE} tokens a trial.",
        threads=f"Threads: packed {CORES}, alone 1.",
        note=f"Medians: {times}.",
    )  # fmt: skip
    return measured(row, ratios(alone, packed))


def step_seconds(root: Path, steps: int, together: bool) -> float:
    """Seconds that one step of every trial took: the sum of lone ones, or what the pack says."""
    records = (root / "experiments" / "train" / MODE).glob("*/record.json")
    seconds = [json.loads(path.read_text())["result"]["train_seconds"] for path in records]
    return float(seconds[0] if together else sum(seconds)) / steps
