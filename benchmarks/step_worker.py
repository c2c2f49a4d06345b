"""A process that trains packs one after the other, and says how long their steps took.

A line of JSON in, one out; `step_workers` talks to it. The first packs pay for no imports this way,
and a pack for no validation: it is left as soon as its last step is timed. Otherwise it trains as
`stages/pack_child.py` does.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.step_workers import WARM_UP_STEPS
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.machine.devices import choose_device, use_threads
from lorascope.machine.memory import keep_freed_memory
from lorascope.meters.batches import BatchMemory
from lorascope.study.grid import expand
from lorascope.training.progress import StepReport, ValidationReport
from lorascope.training.run import train_pack
from lorascope.training.trial_plan import PackPlan, TrialPlan


class _Timed(Exception):
    """All steps that were to be timed are done."""


class StepClock:
    """Progress of a pack that notes when the timed steps started and ended."""

    def __init__(self, steps: int) -> None:
        self.started = self.ended = 0.0
        self._last = WARM_UP_STEPS + steps

    def __call__(self, report: StepReport | ValidationReport) -> bool:
        """Seconds of a clock that all processes share."""
        if isinstance(report, StepReport) and report.step == WARM_UP_STEPS:
            self.started = time.monotonic()
        if isinstance(report, StepReport) and report.step == self._last:
            self.ended = time.monotonic()
            raise _Timed
        return False


def timed_steps(root: Path, overrides: list[str], steps: int) -> dict[str, float]:
    """Train all trials that `overrides` declare as one pack, for so many timed steps."""
    layout = Layout(root)
    configs = expand(layout, [*overrides, f"train.steps={WARM_UP_STEPS + steps}"])
    clock = StepClock(steps)
    with TemporaryDirectory() as scratch:
        device = choose_device(configs[0].runtime.device)
        with suppress(_Timed):
            # Tracked steps are few in a training, and many of those that are timed here.
            memory = BatchMemory(device, tracking=False)
            train_pack(_plan(layout, configs, Path(scratch)), device, clock, memory)
    gc.collect()
    return {"started": clock.started, "ended": clock.ended}


def _plan(layout: Layout, configs: list[Config], scratch: Path) -> PackPlan:
    first = configs[0]
    return PackPlan(
        base=layout.quantized(first.model.name, first.quant.name),
        base_name=first.model.name,
        data=layout.data(first.model.name, first.data.name),
        checkpoints=None,
        quant=first.quant,
        attention=first.model.attention,
        evaluate_batch_size=first.evaluate.batch_size,
        train_on_prompt=first.data.train_on_prompt,
        trials=[
            TrialPlan(own.adapter, own.train, own.seed, scratch / str(index))
            for index, own in enumerate(configs)
        ],
    )


def main() -> None:
    """Answer until nobody asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    use_threads(parser.parse_args().threads)
    keep_freed_memory()
    # As a pack's child does once its libraries are there.
    gc.freeze()
    # What libraries print must not stand between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            asked = json.loads(line)
            times = timed_steps(Path(asked["root"]), asked["overrides"], asked["steps"])
            print(json.dumps(times), file=answers, flush=True)


if __name__ == "__main__":
    main()
