"""B3 of the GPU check, one base in one mode: time and memory of its cases, each a line."""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.gpu_check.bare_run import bare_steps
from benchmarks.gpu_check.cases import SUBJECTS, Case, Subject, tiny
from benchmarks.gpu_check.lines import Lines
from benchmarks.gpu_check.packed_run import packed_steps
from benchmarks.gpu_check.plans import MODES, config_of, plan_name
from benchmarks.gpu_check.profile import StepProfiler
from benchmarks.gpu_check.random_base import LoadedBase, random_base
from benchmarks.gpu_check.step_clock import Effort, OutOfTime, StepClock, synchronize
from benchmarks.gpu_check.steps import TINY_PATIENCE
from lorascope.adapters.layers import linear_shapes
from lorascope.bases.transformers_config import in_short
from lorascope.config import DeviceKind
from lorascope.machine.devices import choose_device
from lorascope.machine.libraries import quiet_libraries
from lorascope.machine.memory import is_out_of_memory
from lorascope.quantizers.footprint import measure_footprint

OUTLIER_CHANNELS, OUTLIER_FACTOR = 4, 40.0
"""Channels of each norm whose weight is scaled, and by how much: LLM.int8 was made for models with
a few such channels, and a random base has none."""

Values = dict[str, object]


@dataclass(frozen=True)
class Measurement:
    """A loaded base, and what is needed to measure its cases."""

    subject: Subject
    base: LoadedBase
    effort: Effort
    until: float
    """`time.monotonic()` after which nothing more is begun."""
    plans: dict[str, int]
    """Planned bytes by subject and case, made beforehand."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check.speed")
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--subject", choices=names, required=True)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--plans", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure all cases of a base that there is time for."""
    given = arguments()
    # The small check has patience with a busy computer.
    until = time.monotonic() + given.seconds * (TINY_PATIENCE if given.tiny else 1)
    quiet_libraries()
    (subject,) = (own for own in SUBJECTS if own.name == given.subject)
    lines, device = Lines(given.lines), choose_device(DeviceKind(given.device))
    config, quant = config_of(subject, given.tiny), MODES[subject.mode]
    started = time.perf_counter()
    base = random_base(config, quant, device)
    synchronize(device)
    lines.add(
        subject.name, "base", make_seconds=time.perf_counter() - started,
        base_bytes=measure_footprint(base.model).total_bytes,
        linear_parameters=sum(s.in_features * s.out_features for s in linear_shapes(base.model)),
    )  # fmt: skip
    plans = json.loads(given.plans.read_text(encoding="utf-8")) if given.plans.is_file() else {}
    effort = Effort(2, 2) if given.tiny else Effort()
    measurement = Measurement(subject, base, effort, until, plans)
    for case in (tiny(subject) if given.tiny else subject).cases:
        kind = "profile" if case.profiled else "steps"
        lines.add(subject.name, kind, case=case.name, **attempt(measurement, case))


def attempt(measurement: Measurement, case: Case) -> Values:
    """What a case took and needed, or the reason why it was not measured."""
    if time.monotonic() > measurement.until:
        return {"failure": "left out: the time was over"}
    measure: Callable[[], Values] = partial(profiled if case.profiled else timed, measurement, case)
    try:
        with_outliers = partial(scale_norms, measurement.base.model)
        if case.outliers:
            with_outliers(OUTLIER_FACTOR)
        try:
            return measure()
        finally:
            if case.outliers:
                with_outliers(1 / OUTLIER_FACTOR)
    except OutOfTime as error:
        return {"failure": f"left out: {error}"}
    except Exception as error:
        if is_out_of_memory(error):
            reason = f"does not fit this device: {in_short(error)}"
            return {"failure": reason, **planned(measurement, case)}
        return {"failure": in_short(error)}
    finally:
        free_memory()


def timed(measurement: Measurement, case: Case) -> Values:
    """Times and peaks of a case's steps, beside the plan."""
    base = measurement.base
    clock = StepClock(base.device, measurement.effort, measurement.until)
    tracked_bytes = None
    if case.bare:
        bare_steps(base, case, clock.steps, clock)
    else:
        tracked_bytes = packed_steps(base, case, clock.steps, clock)
    values = asdict(clock.measured())
    values["peak_bytes"] = values["peak_bytes"] or tracked_bytes
    rows = case.trials * case.samples
    tokens = rows * case.tokens
    return {
        **values, "trials": case.trials, "samples": case.samples, "tokens": case.tokens,
        "tokens_a_second": tokens / values["step_seconds"], **planned(measurement, case),
    }  # fmt: skip


def profiled(measurement: Measurement, case: Case) -> Values:
    """Launches and busy share of one step."""
    profiler = StepProfiler(measurement.base.device, measurement.effort.warm_up_steps)
    packed_steps(measurement.base, case, profiler.steps, profiler)
    return asdict(profiler.measured())


def planned(measurement: Measurement, case: Case) -> Values:
    """The planned peak of a case, where one was made beforehand."""
    name = plan_name(measurement.subject, case, measurement.base.device.kind)
    return {"planned_bytes": measurement.plans[name]} if name in measurement.plans else {}


def scale_norms(model: nn.Module, factor: float) -> None:
    """Scale the first channels of every norm's weight."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and parameter.dim() == 1:
                parameter[:OUTLIER_CHANNELS] *= factor


def free_memory() -> None:
    """A Trainer's parts refer to each other; what they held must not count for the next case."""
    gc.collect()
    if torch.cuda.is_available():
        # After a fault in a kernel every call fails, and the cases that follow will say so.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
