"""What scoring adapters costs, beside an lm-eval run for each, and whether the scores agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.measure import BenchmarkError, in_turns, ratios, seconds_in_sequence
from benchmarks.table import AT_LEAST, AT_MOST, Row, measured
from benchmarks.workload import EVALUATION_BATCH_SIZE, MODE, Workload

TRACKING_OFF = "runtime.tracking=false"


def evaluation(workload: Workload) -> list[Row]:
    """One `evaluate -m` against an lm-eval run an adapter, and the scores of both.

    lorascope does more: it scores the validation split, the bare base and token distributions too.
    """
    ranks, trained = workload.size.ranks, workload.trained
    adapters = {rank: adapter_of(trained, rank) for rank in ranks}

    def lorascope(index: int) -> float:
        root = workload.fresh_project(f"scored-{index}")
        (root / "experiments").mkdir()
        (root / "experiments" / "train").symlink_to(trained / "experiments" / "train")
        overrides = (*workload.trial_overrides(ranks, workload.size.stored_steps), TRACKING_OFF)
        batch = f"evaluate.batch_size={EVALUATION_BATCH_SIZE}"
        return seconds_in_sequence([workload.lorascope(root, "evaluate", "-m", *overrides, batch)])

    def bare(index: int) -> float:
        return seconds_in_sequence(
            [
                workload.bare_evaluation(adapter, bare_scores_file(workload, index, rank))
                for rank, adapter in adapters.items()
            ]
        )

    ours, alone = in_turns((lorascope, bare), workload.size.rounds)
    gaps = [
        largest_gap(
            read_bare_scores(bare_scores_file(workload, index, rank)),
            read_lorascope_scores(workload.folder / f"scored-{index}", rank),
        )
        for index in range(workload.size.rounds)
        for rank in ranks
    ]
    return _rows(workload, ours, alone, gaps)


def _rows(
    workload: Workload, ours: list[float], alone: list[float], gaps: list[float]
) -> list[Row]:
    adapters = len(workload.size.ranks)
    speed = Row(
        "evaluation: seconds", f"{adapters} adapters: lm-eval runs / `evaluate -m`", AT_LEAST, 4.0,
        "x", note=f"Medians: bare {median(alone):.1f} s, lorascope {median(ours):.1f} s.",
    )  # fmt: skip
    agreement = Row(
        "evaluation: scores", "largest difference of an item's log-likelihood (absolute)", AT_MOST,
        1e-4, "nats", value=max(gaps), lowest=min(gaps), highest=max(gaps), runs=len(gaps),
        note="The largest over all items, adapters and rounds; a run is one adapter in one round.",
    )  # fmt: skip
    rows = (measured(speed, ratios(alone, ours)), agreement)
    return [_described(row, workload) for row in rows]


def _described(row: Row, workload: Workload) -> Row:
    items = len((workload.rows / "test.jsonl").read_text(encoding="utf-8").splitlines())
    return replace(
        row,
        workload=f"{len(workload.size.ranks)} adapters on {items} test items of about 32 tokens, "
        f"{MODE}, batches of {EVALUATION_BATCH_SIZE}. lorascope scores the validation items and "
        "the bare base too.",
        threads=f"Threads: lorascope {workload.threads}, bare {workload.bare_threads}.",
    )


def adapter_of(root: Path, rank: int, mode: str = MODE) -> Path:
    """The folder of the only trained adapter of this rank."""
    (trial,) = (root / "experiments" / "train" / mode).glob(f"{mode}-r{rank:04d}-*")
    return trial / "adapter"


def bare_scores_file(workload: Workload, index: int, rank: int) -> Path:
    """Where the bare run of one round and rank writes."""
    return workload.folder / f"bare-scores-{index}-{rank}.jsonl"


def read_bare_scores(path: Path) -> dict[str, float]:
    """Item -> log-likelihood in nats, as `bare_lm_eval.py` wrote them."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["item"]: line["loglikelihood"] for line in lines}


def read_lorascope_scores(root: Path, rank: int, mode: str = MODE) -> dict[str, float]:
    """Item -> log-likelihood in nats of the test split, as `lorascope evaluate` wrote them."""
    (folder,) = (root / "experiments" / "evaluate" / mode).glob(f"{mode}-r{rank:04d}-*")
    lines = (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["item"]: -line["loss_nats"] for line in map(json.loads, lines)}


def largest_gap(one: dict[str, float], other: dict[str, float]) -> float:
    """Largest difference over the items, in nats.

    Raises:
        BenchmarkError: the two did not score the same items.
    """
    if not one or one.keys() != other.keys():
        raise BenchmarkError(
            f"{len(one)} and {len(other)} items were scored, {len(one.keys() & other.keys())} of "
            "them by both: the scores cannot be compared. Both must read the same test.jsonl."
        )
    return max(abs(value - other[item]) for item, value in one.items())
