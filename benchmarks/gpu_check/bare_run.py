"""Steps of B0: what benchmarks/bare_script.py does, on a base that is loaded already."""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from transformers import Trainer, default_data_collator
from transformers.trainer_callback import PrinterCallback

from benchmarks.gpu_check.packed_run import random_samples
from benchmarks.gpu_check.records import LEARNING_RATE, LORA, LoadedBase, StepRow
from benchmarks.gpu_check.step_clock import StepClock
from lorascope.machine.devices import TORCH_DTYPES
from lorascope.quantizers.loading import compute_precision

# It is a script: it finds what it imports beside itself.
sys.path.append(str(Path(__file__).parents[1]))

import bare_script


def bare_row(base: LoadedBase, row: StepRow, clock: StepClock) -> StepRow:
    """`row` with what steps of one trial took and needed.

    Raises:
        OutOfTime: the deadline came before a step was measured.
    """
    samples = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids}
        for ids in random_samples(base, row.tokens_a_trial, clock.steps)
    ]
    compute = TORCH_DTYPES[compute_precision(base.quant, base.device).value]
    with tempfile.TemporaryDirectory() as scratch:
        given = Namespace(
            output=Path(scratch), steps=clock.steps, batch_size=1, learning_rate=LEARNING_RATE,
            rank=LORA.rank, alpha=LORA.alpha, seed=0,
        )  # fmt: skip
        model = bare_script.with_adapter(base.model, given)
        try:
            trainer = Trainer(
                model=model, args=bare_script.training_arguments(given, compute),
                train_dataset=samples, data_collator=default_data_collator, callbacks=[clock],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        finally:
            model.unload()
    return clock.measured(row)
