"""Steps of B0: what benchmarks/bare_script.py does, on a base that is loaded already."""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from transformers import Trainer, TrainerCallback, default_data_collator
from transformers.trainer_callback import PrinterCallback

from benchmarks.gpu_check.cases import ALPHA, LEARNING_RATE, RANK, Case
from benchmarks.gpu_check.packed_run import random_samples
from benchmarks.gpu_check.random_base import LoadedBase
from lorascope.machine.devices import TORCH_DTYPES
from lorascope.quantizers.loading import compute_precision

# It is a script: it finds what it imports beside itself.
sys.path.append(str(Path(__file__).parents[1]))

import bare_script


def bare_steps(base: LoadedBase, case: Case, steps: int, clock: TrainerCallback) -> None:
    """Take so many steps of one trial with transformers' Trainer, of which `clock` hears."""
    samples = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids}
        for ids in random_samples(base, case, steps)
    ]
    compute = TORCH_DTYPES[compute_precision(base.quant, base.device).value]
    with tempfile.TemporaryDirectory() as scratch:
        given = Namespace(
            output=Path(scratch), steps=steps, batch_size=case.samples,
            learning_rate=LEARNING_RATE, rank=RANK, alpha=ALPHA, seed=0,
        )  # fmt: skip
        arguments = bare_script.training_arguments(given, compute)
        arguments.use_cpu = base.device.kind == "cpu"
        arguments.gradient_checkpointing = case.checkpointed
        model = bare_script.with_adapter(base.model, given)
        try:
            trainer = Trainer(
                model=model, args=arguments, train_dataset=samples,
                data_collator=default_data_collator, callbacks=[clock],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        finally:
            model.unload()
            base.model.activation_checkpointing_disable()
