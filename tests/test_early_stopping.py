"""Early stopping: each trial by its own validations, its best weights kept, its company untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from lorascope.completion_loss import completion_loss, completion_samples
from lorascope.config import Config
from lorascope.config_rules import validate
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, tokenize_row
from lorascope.early_stopping import best_of, has_stopped, misses
from lorascope.errors import ConfigError
from lorascope.layout import Layout
from lorascope.lora import attach, load_adapter
from lorascope.pack_progress import StepReport, Stopped, ValidationReport
from lorascope.packed_batches import Padding
from lorascope.quantization import load_base
from lorascope.records import TrainingResult, TrialRecord, ValidationPoint
from lorascope.stages import train_lora
from lorascope.stages.sweep_progress import sentence
from lorascope.store import read_record
from lorascope.training import train_pack
from lorascope.training_steps import Diverged
from tests.packs import CPU, pack_plan, plan_for, train_alone

Compose = Callable[..., Config]

EARLY = ("train.steps=60", "train.validate_every_steps=3", "train.patience=3")
"""The small project's colours follow from no rule that its model could find: it learns which ones
there are, and then the training rows by heart."""
TRIALS = (
    ("lora.rank=4", "seed=1200"),
    ("lora.rank=4", "seed=1201", "train.learning_rate=3e-4"),
    ("lora.rank=16", "seed=1202", "train.learning_rate=3e-2"),
    ("lora.rank=4", "seed=1203", "train.learning_rate=3e-3", "lora.dropout=0.1"),
)
"""They stop at different steps, and the second never."""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as the claim is made for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def points(*losses_nats: float | None) -> list[ValidationPoint]:
    return [ValidationPoint(step, loss) for step, loss in enumerate(losses_nats, start=1)]


def trained(
    project: Layout, configs: Sequence[Config], folder: Path, checkpoints: Path | None = None
) -> list[TrainingResult]:
    plan = pack_plan(project, configs, [folder / str(index) for index in range(len(configs))])
    results = [
        outcome
        for outcome in train_pack(replace(plan, checkpoints=checkpoints), CPU)
        if isinstance(outcome, TrainingResult)
    ]
    assert len(results) == len(configs)
    return results


def said(result: TrainingResult) -> tuple[object, ...]:
    """All of a result that must not depend on company, kills or the clock."""
    return (
        result.adapter_sha256, result.losses, result.validations, result.validation_loss_nats,
        result.steps, result.stopped_at_step, result.saved_step, result.processed_tokens,
    )  # fmt: skip
