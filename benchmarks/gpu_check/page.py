"""The page: what was found for each base, then every row, then what was not measured and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.gpu_check.findings import GAIN_THAT_PAYS
from benchmarks.gpu_check.records import (
    BaseRow,
    Finding,
    Gain,
    GpuCheck,
    LayerRow,
    StepRow,
)

GIGABYTE = 1e9


def as_markdown(check: GpuCheck) -> str:
    """The whole page."""
    lora, effort = check.lora, check.effort
    lines = [
        f"# GPU check: {check.device_name}", "",
        "Written by `make gpu-check`. Bases have the shapes of public models and random weights: "
        "times and memory are real, losses mean nothing. A random base has other outliers than a "
        "trained one, on which the time of INT8 depends.", "",
        f"All steps: rank {lora.rank} on all linear layers, one sample a trial, no checkpointed "
        f"layers; median of {effort.measured_steps} after {effort.warm_up_steps} to warm up, by "
        "the clock from the end of one step to the end of the next. The `bare` ones are those of "
        "benchmarks/bare_script.py.", "",
        "## What was found", "", *_found(check), "",
        "Floor: a trial's step at the fewest tokens. Cost a token: slope of the least-squares line "
        "through a trial's steps at all token counts, with its largest residual. Dequantization: "
        "forward passes of all linear layers beyond 16-bit ones of equal shape, at "
        f"{effort.layer_tokens} tokens. Pays to: the most tokens a trial, of those measured, at "
        f"which packing {effort.trials[-1]} gains over {100 * (GAIN_THAT_PAYS - 1):.0f} %. Plan: "
        "its largest error against the measured peak.", "",
        "## Packing: steps of K trials alone / one step of the pack", "",
        *_by_tokens(check, [(f, g) for f in check.findings for g in f.gains]), "",
        "## B0: the bare script's step / lorascope's, one trial", "",
        *_by_tokens(check, [(f, g) for f in check.findings for g in f.bare_ratios]), "",
        "## Steps", "", *_steps(check.steps), "",
        "## Layers", "", *_layers(check.layers), "",
        "## Not measured", "", *_not_measured(check), "",
        f"Device memory {check.device_bytes / GIGABYTE:.1f} GB; CUDA {check.cuda_version}; "
        f"{check.seconds:.0f} s of {effort.deadline_seconds:.0f}. Commit {check.git_commit}; "
        f"{check.versions}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _found(check: GpuCheck) -> Iterable[str]:
    yield from _head(
        ("Model", "Mode"), "Base GB", "Floor ms", "Cost a token µs", "Fit ±%",
        "Dequantization ms", "Pays to", "Plan %",
    )  # fmt: skip
    for base, own in zip(check.bases, check.findings, strict=True):
        yield _line(
            own.shape, own.mode, _number(base.base_bytes, 1 / GIGABYTE),
            _number(own.launch_floor_seconds, 1e3), _number(own.seconds_a_token, 1e6),
            _number(own.largest_residual_percent, 1), _number(own.dequantization_seconds, 1e3),
            _break_even(own, check), _number(own.largest_plan_error_percent, 1),
        )  # fmt: skip


def _break_even(finding: Finding, check: GpuCheck) -> str:
    tokens = finding.break_even_tokens_a_trial
    if tokens is None:
        return ""
    measured = [g.tokens_a_trial for g in finding.gains if g.trials == check.effort.trials[-1]]
    return f"{tokens} or more" if tokens == max(measured, default=None) else str(tokens)


def _by_tokens(check: GpuCheck, gains: Sequence[tuple[Finding, Gain]]) -> Iterable[str]:
    """A line for each base and number of trials, a column for each token count."""
    yield from _head(
        ("Model", "Mode"), "K", *(f"{tokens} tokens" for tokens in check.effort.tokens)
    )
    ratios: dict[tuple[str, str, int], dict[int, float]] = {}
    for finding, gain in gains:
        own = ratios.setdefault((finding.shape, finding.mode, gain.trials), {})
        own[gain.tokens_a_trial] = gain.ratio
    for (shape, mode, trials), own in ratios.items():
        cells = (_number(own.get(tokens), 1) for tokens in check.effort.tokens)
        yield _line(shape, mode, str(trials), *cells)


def _steps(rows: Sequence[StepRow]) -> Iterable[str]:
    yield from _head(
        ("Model", "Mode", "By"), "K", "Tokens a trial", "Step ms", "Lowest to highest",
        "Tokens/s", "Peak GB", "Planned GB", "Plan %",
    )  # fmt: skip
    for row in rows:
        if row.step_seconds is not None:
            spread = f"{_number(row.lowest_seconds, 1e3)} to {_number(row.highest_seconds, 1e3)}"
            yield _line(
                row.shape, row.mode, row.path, str(row.trials), str(row.tokens_a_trial),
                _number(row.step_seconds, 1e3), spread, _number(row.tokens_a_second, 1),
                _number(row.peak_bytes, 1 / GIGABYTE), _number(row.planned_bytes, 1 / GIGABYTE),
                _number(row.plan_error_percent, 1),
            )  # fmt: skip


def _layers(rows: Sequence[LayerRow]) -> Iterable[str]:
    yield from _head(
        ("Model", "Mode"), "In", "Out", "Layers", "Tokens", "Quantized ms", "16-bit ms"
    )
    for row in rows:
        if row.quantized_seconds is not None:
            yield _line(
                row.shape, row.mode, str(row.in_features), str(row.out_features), str(row.layers),
                str(row.tokens), _number(row.quantized_seconds, 1e3),
                _number(row.plain_seconds, 1e3),
            )  # fmt: skip


def _not_measured(check: GpuCheck) -> list[str]:
    rows: list[BaseRow | StepRow | LayerRow] = [*check.bases, *check.layers, *check.steps]
    told = [f"- {row_name(row)}: {row.failure}" for row in rows if row.failure]
    return told or ["Nothing: all rows are there."]


def row_name(row: BaseRow | StepRow | LayerRow) -> str:
    """What to call a row."""
    name = f"{row.shape} {row.mode}"
    if isinstance(row, StepRow):
        return f"{name} {row.path} K={row.trials} tokens={row.tokens_a_trial}"
    if isinstance(row, LayerRow):
        return f"{name} layer {row.in_features} x {row.out_features}"
    return f"{name} base"


def told(row: BaseRow | StepRow | LayerRow) -> str:
    """One line about a row, as it is printed while the check runs."""
    if row.failure:
        return f"{row_name(row)}: {row.failure}"
    if isinstance(row, BaseRow):
        size = _number(row.base_bytes, 1 / GIGABYTE)
        return f"{row_name(row)}: {size} GB, made in {_number(row.make_seconds, 1)} s"
    if isinstance(row, LayerRow):
        quantized, plain = _number(row.quantized_seconds, 1e3), _number(row.plain_seconds, 1e3)
        return f"{row_name(row)}: {quantized} ms, 16-bit {plain} ms"
    peak = f", peak {_number(row.peak_bytes, 1 / GIGABYTE)} GB" if row.peak_bytes else ""
    error = row.plan_error_percent
    plan = "" if error is None else f", planned {error:+.1f} %"
    return f"{row_name(row)}: {_number(row.step_seconds, 1e3)} ms{peak}{plan}"


def _head(texts: Sequence[str], *numbers: str) -> tuple[str, str]:
    rules = ["---"] * len(texts) + ["---:"] * len(numbers)
    return _line(*texts, *numbers), "|" + "|".join(rules) + "|"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None, factor: float) -> str:
    """Three digits that count or more, in the column's unit; empty where it is unknown."""
    if value is None:
        return ""
    scaled = value * factor
    return f"{scaled:.0f}" if abs(scaled) >= 1000 else f"{scaled:.3g}"
