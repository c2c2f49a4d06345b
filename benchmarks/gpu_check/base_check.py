"""All measurements of one base while it is loaded; what fails is a row, and the rest goes on."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch

from benchmarks.gpu_check.bare_run import bare_row
from benchmarks.gpu_check.layer_cost import layer_row, quantized_layers
from benchmarks.gpu_check.packed_run import packed_row, planned_bytes
from benchmarks.gpu_check.random_base import random_base
from benchmarks.gpu_check.records import (
    BARE,
    PACKED,
    BaseRow,
    Effort,
    LayerRow,
    LoadedBase,
    StepRow,
)
from benchmarks.gpu_check.step_clock import OutOfTime, StepClock, synchronize
from lorascope.bases.transformers_config import in_short
from lorascope.config import QuantConfig
from lorascope.machine.devices import Device
from lorascope.quantizers.footprint import measure_footprint

Row = TypeVar("Row", BaseRow, StepRow, LayerRow)


@dataclass(frozen=True)
class Asked:
    """One base and how it is measured."""

    shape: str
    config: Mapping[str, object]
    """As in its config.json."""
    quant: QuantConfig
    device: Device
    effort: Effort
    until: float
    """`time.monotonic()` after which nothing more is begun."""


def check_base(asked: Asked) -> Iterator[BaseRow | StepRow | LayerRow]:
    """The base's own row, then those of its layers and steps, each as soon as it is measured."""
    # The base before this one is gone, but for what refers to itself.
    free_memory()
    loaded: list[LoadedBase] = []

    def made(row: BaseRow) -> BaseRow:
        started = time.perf_counter()
        base = random_base(asked.shape, asked.config, asked.quant, asked.device)
        synchronize(asked.device)
        loaded.append(base)
        seconds = time.perf_counter() - started
        size = measure_footprint(base.model).total_bytes
        return replace(row, base_bytes=size, make_seconds=seconds)

    yield attempt(BaseRow(asked.shape, asked.quant.name), asked.until, made)
    for base in loaded:
        for row, layer in quantized_layers(base, asked.effort):
            measure = partial(layer_row, base, layer=layer, effort=asked.effort)
            yield attempt(row, asked.until, measure)
        for step in step_rows(asked):
            yield _measured_step(base, asked, step)


def _measured_step(base: LoadedBase, asked: Asked, row: StepRow) -> StepRow:
    """With the plan for the smallest and the largest packs, for which a trace takes a second."""
    clock = StepClock(asked.device, asked.effort, asked.until)
    measure = partial(packed_row if row.path == PACKED else bare_row, base, clock=clock)
    done = attempt(row, asked.until, measure)
    trials = asked.effort.trials
    if done.failure or done.path == BARE or done.trials not in (trials[0], trials[-1]):
        return done

    def planned(row: StepRow) -> StepRow:
        return replace(row, planned_bytes=planned_bytes(base, row.trials, row.tokens_a_trial))

    return attempt(done, asked.until, planned)


def step_rows(asked: Asked) -> Iterator[StepRow]:
    """Rows to fill: B0 right after lorascope's single trial, so that a device that grows hot slows
    both."""
    for trials in asked.effort.trials:
        for path in (PACKED, BARE) if trials == 1 else (PACKED,):
            for tokens in asked.effort.tokens:
                yield StepRow(asked.shape, asked.quant.name, path, trials, tokens)


def attempt(row: Row, until: float, measure: Callable[[Row], Row]) -> Row:
    """What `measure` makes of `row`, or `row` with the reason why it was not measured."""
    if time.monotonic() > until:
        return replace(row, failure="left out: the time was over")
    try:
        return measure(row)
    except OutOfTime as error:
        return replace(row, failure=f"left out: {error}")
    except torch.OutOfMemoryError as error:
        return replace(row, failure=f"does not fit this device: {in_short(error)}")
    except Exception as error:
        return replace(row, failure=in_short(error))
    finally:
        free_memory()


def free_memory() -> None:
    """A Trainer's parts refer to each other; what they held must not count for the next row."""
    gc.collect()
    if torch.cuda.is_available():
        # After a fault in a kernel every call fails, and the rows that follow will say so.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
