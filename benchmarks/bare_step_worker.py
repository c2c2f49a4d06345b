"""A process that trains as the bare script does, one adapter after the other, and says how long the
steps took; `step_workers` talks to it. A line of JSON in, one out."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from typing import Any

import bare_script
import torch
from transformers import TrainerCallback
from transformers.utils import logging


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Notes when the first steps were over, and when the last was."""

    def __init__(self, warm_up_steps: int) -> None:
        self.started = self.ended = 0.0
        self._warm_up_steps = warm_up_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seconds of a clock that all processes share."""
        if state.global_step == self._warm_up_steps:
            self.started = time.monotonic()
        if state.global_step == state.max_steps:
            self.ended = time.monotonic()


def timed_steps(words: list[str], warm_up_steps: int) -> dict[str, float]:
    """Train as the bare script's command line says."""
    trainer = bare_script.trainer_of(bare_script.arguments(words))
    clock = StepClock(warm_up_steps)
    trainer.add_callback(clock)
    trainer.train()
    # A bare script has no former Trainers in its memory, whose parts refer to each other.
    del trainer
    gc.collect()
    return {"started": clock.started, "ended": clock.ended}


def main() -> None:
    """Answer until nobody asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    torch.set_num_threads(parser.parse_args().threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # What libraries print must not stand between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            asked = json.loads(line)
            times = timed_steps(asked["words"], asked["warm_up_steps"])
            print(json.dumps(times), file=answers, flush=True)


if __name__ == "__main__":
    main()
