"""The page of a GPU check: what its lines of results say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.gpu_check.cases import MIXED_RANKS, SUBJECTS, Case
from benchmarks.gpu_check.lines import Line

GIGABYTE = 1e9
FLOPS_A_WEIGHT = 4
"""Of a frozen weight for each token: two forward, two for the gradient of its input. What layers
that are checkpointed compute again does not count."""
PACKED, ALONE, BARE = Case(256, 8).name, Case(256).name, Case(256, bare=True).name
MIXED = Case(256, 8, ranks=MIXED_RANKS).name


def page_of(lines: Sequence[Line]) -> str:
    """The whole page, of however many lines there are so far."""
    start: dict[str, Any] = next((line for line in lines if line["kind"] == "start"), {})
    parts = [
        f"# GPU check: {start.get('device', 'unknown device')}", "",
        "Written by `make gpu-check` from results.jsonl beside it. Bases of the timed steps have "
        "the shapes of public models and random weights: times and memory are real, losses mean "
        "nothing.", "",
        "## Steps", "", *_ends(lines), "",
        "## Tests", "", *_tests(lines), "",
        "## The study against its CPU records", "", *_study(lines), "",
        "## Gains", "", *_gains(lines), "",
        "## Time and memory", "", *_cases(lines), "",
        f"Commit {start.get('commit')}; CUDA {start.get('cuda')}; {start.get('versions')}.",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _ends(lines: Sequence[Line]) -> Iterator[str]:
    for line in lines:
        if line["kind"] == "end":
            yield f"- {line['step']}: {line['ended']}, {line['seconds']} s"


def _tests(lines: Sequence[Line]) -> Iterator[str]:
    told = [line for line in lines if line["kind"] == "test"]
    counts = Counter(str(line["outcome"]) for line in told)
    yield ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "none"
    for line in told:
        if line["outcome"] == "failed":
            failure = str(line["failure"]).strip().splitlines()
            yield f"- {line['name']}: {failure[-1] if failure else ''}"


def _study(lines: Sequence[Line]) -> Iterator[str]:
    trials: list[dict[str, Any]] = [line for line in lines if line["kind"] == "trial"]
    passed = sum(bool(line["passed"]) for line in trials)
    yield f"{passed} of {len(trials)} within losses and standard errors."
    for line in trials:
        if "failure" in line:
            yield f"- {line['name']}: {line['failure']}"
            continue
        gap = max(line["loss_gaps_nats"].values(), key=abs)
        errors = max(line["gaps_in_standard_errors"].values(), key=abs, default=0.0)
        verdict = "" if line["passed"] else ", too far"
        yield f"- {line['name']}: {gap:+.4f} nats, {errors:+.2f} standard errors{verdict}"
    for line in lines:
        if line["kind"] == "merge":
            yield f"- merge: {'passed' if line['passed'] else line['failure']}"


def _gains(lines: Sequence[Line]) -> Iterator[str]:
    steps = {
        (str(line["step"]), str(line["case"])): line for line in lines if line["kind"] == "steps"
    }
    for subject in SUBJECTS:
        seconds: dict[str, Any] = {
            case: line["step_seconds"]
            for (name, case), line in steps.items()
            if name == subject.name and "step_seconds" in line
        }
        for case in subject.cases:
            alone, packed = Case(case.tokens).name, seconds.get(case.name)
            if packed is None or case.samples > 1 or case.padded or case.outliers:
                continue
            if case.bare and alone in seconds:
                ratio = packed / seconds[alone]
                yield f"- {subject.name}, {case.name} / lorascope's step: {ratio:.2f}"
            elif case.trials > 1 and alone in seconds:
                gain = case.trials * seconds[alone] / packed
                yield f"- {subject.name}, {case.trials} single steps / {case.name}: {gain:.2f}"
    yield from _plans(steps.values())
    yield from _throughput(lines, steps)


def _plans(steps: Any) -> Iterator[str]:
    errors = [abs(error) for line in steps if (error := plan_error_percent(line)) is not None]
    if errors:
        yield (
            f"- peaks against the plan: median error {median(errors):.1f} %, "
            f"largest {max(errors):.1f} %, {len(errors)} cases"
        )


def _throughput(lines: Sequence[Line], steps: Any) -> Iterator[str]:
    weights: dict[str, Any] = {
        str(line["step"]): line["linear_parameters"] for line in lines if line["kind"] == "base"
    }
    for (name, case), line in steps.items():
        if line.get("samples", 1) > 1 and "tokens_a_second" in line and name in weights:
            flops = FLOPS_A_WEIGHT * weights[name] * line["tokens_a_second"]
            yield f"- {name}, {case}: {flops / 1e12:.0f} TFLOP/s in the base's linear layers"


def plan_error_percent(line: dict[str, Any]) -> float | None:
    """How far the plan is above the measured peak; None where either is missing."""
    if not line.get("peak_bytes") or not line.get("planned_bytes"):
        return None
    return 100 * (float(line["planned_bytes"]) / float(line["peak_bytes"]) - 1)


def _cases(lines: Sequence[Line]) -> Iterator[str]:
    yield "| Base | Case | Step ms | From, to | Tokens/s | Peak GB | Reserved GB | Plan % |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for line in lines:
        row: dict[str, Any] = dict(line)
        name = f"| {row['step']} | {row.get('case', 'base')} |"
        if "failure" in row and row["kind"] in ("steps", "profile"):
            yield f"{name} {row['failure']} | | | | | |"
        elif row["kind"] == "steps":
            low, high = (1e3 * row[key] for key in ("lowest_seconds", "highest_seconds"))
            error = plan_error_percent(row)
            percent = "" if error is None else f"{error:+.1f}"
            yield (
                f"{name} {1e3 * row['step_seconds']:.1f} | {low:.1f} to {high:.1f} "
                f"| {row['tokens_a_second']:.0f} | {_gigabytes(row['peak_bytes'])} "
                f"| {_gigabytes(row['reserved_bytes'])} | {percent} |"
            )
        elif row["kind"] == "profile":
            busy = f"{row['launches']} launches, busy {100 * row['busy_share']:.0f} %"
            yield f"{name} {1e3 * row['step_seconds']:.1f} | {busy} | | | | |"


def _gigabytes(size: float | None) -> str:
    return "" if size is None else f"{size / GIGABYTE:.2f}"
