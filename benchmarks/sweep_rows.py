"""A sweep of ranks against as many bare scripts, at many and at few tokens a step."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import in_turns, ratios, seconds_in_sequence, seconds_side_by_side
from benchmarks.run_parts import imports_told, medians, parts_told, trained_parts
from benchmarks.table import AT_LEAST, Row, measured
from benchmarks.workload import BATCH_SIZE, MODE, Workload

TOKENS_A_SAMPLE = 32
MANY_TOKENS_REASON = (
    "imports, loading, validation and predictions are fixed costs (parts above), and in the "
    "steps of this size packing gains little over two lone processes (notes of packed steps)."
)
FEW_TOKENS_REASON = (
    "beside its steps a sweep pays for one process's imports, and for validation and predictions, "
    "which the bare scripts do not do (parts above)."
)


def sweep(workload: Workload) -> list[Row]:
    """At 256 tokens a trial and step."""
    return _rows(workload, "sweep", BATCH_SIZE, MANY_TOKENS_REASON)


def sweep_few_tokens(workload: Workload) -> list[Row]:
    """At 32 tokens a trial and step."""
    return _rows(workload, "sweep few tokens", 1, FEW_TOKENS_REASON)


def _rows(workload: Workload, name: str, batch: int, reason: str) -> list[Row]:
    """One `train-lora -m` over all ranks against as many bare scripts: in sequence, and two side by
    side. Seconds of imports count on both sides."""
    ranks, label = workload.size.ranks, name.replace(" ", "-")

    def root(index: int) -> Path:
        return workload.folder / f"{label}-{index}"

    def lorascope(index: int) -> float:
        workload.fresh_project(root(index).name)
        return seconds_in_sequence([workload.train(root(index), ranks, batch=batch)])

    def bare(index: int) -> float:
        folder = workload.folder / f"bare-{label}-{index}"
        commands = [workload.bare_training(folder / str(r), r, batch=batch) for r in ranks]
        return seconds_in_sequence(commands)

    def two_bare(index: int) -> float:
        folder = workload.folder / f"bare-two-{label}-{index}"
        commands = [workload.bare_training(folder / str(r), r, batch=batch) for r in ranks]
        return seconds_side_by_side(commands, processes=2)

    ours, alone, two = in_turns((lorascope, bare, two_bare), workload.size.rounds)
    parts = parts_told(trained_parts(root(workload.size.rounds - 1)), ours[-1])
    told = f"Lorascope's last round: {parts} {imports_told(workload)}"

    def row(side: str, scripts: str, goal: float, seconds: list[float]) -> Row:
        tokens = batch * TOKENS_A_SAMPLE
        compared = f"{len(ranks)} ranks ({ranks[0]} to {ranks[-1]}): {scripts} / `train-lora -m`"
        made = Row(
            f"{name}: {tokens} tokens a trial, {side}", compared, AT_LEAST, goal, "x",
            workload=f"Llama of 0.7 M parameters, {MODE}, all linear layers, {workload.size.steps} "
            f"steps of batches of {batch} with about {TOKENS_A_SAMPLE} tokens a sample.",
            threads=f"Threads: lorascope {workload.threads}, bare {workload.bare_threads}.",
            note=f"{medians(bare=seconds, lorascope=ours)} {told}",
            reason=reason,
        )  # fmt: skip
        return measured(made, ratios(seconds, ours))

    return [
        row("one after the other", "bare scripts", 5.0, alone),
        row("two side by side", "two bare scripts at a time", 2.5, two),
    ]
