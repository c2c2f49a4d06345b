"""Layers placed over several devices train, validate, save and answer what they do on one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.machine.devices import Device
from lorascope.records import TrainingResult
from lorascope.training.progress import StepReport, Stopped
from lorascope.training.run import train_pack
from tests.devices import CPU
from tests.packs import pack_plan

Compose = Callable[..., Config]

PLACED = Device("cpu", "cpu", places=("cpu", "cpu"))
"""Two places of one device: layers of the second are connected as on another GPU."""
STEPS = (
    "train.steps=6", "train.log_every_steps=1", "train.validate_every_steps=3",
    "train.batch_size=6", "train.micro_batch_size=3",
)  # fmt: skip
CASES: dict[str, list[tuple[str, ...]]] = {
    "fp16": [("quant=fp16", "lora.rank=4")],
    "pack": [
        ("quant=nf4", "lora.rank=4", "lora.dropout=0.2"),
        ("quant=nf4", "lora.rank=9", "seed=1", "train.layer_drop=0.2", "lora.b_rate_ratio=4"),
    ],
    "checkpointed": [("quant=nf4_dq", "lora.rank=4", "train.gradient_checkpointing=true")],
    "int8": [("quant=int8", "lora.rank=4", "train.patience=1", "train.learning_rate=0.5")],
    "dora": [("quant=fp16", "lora.rank=4", "lora.dora=true")],
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", CASES)
def test_placed_layers_train_to_the_bit_what_one_device_trains(
    project: Layout, compose: Compose, tmp_path: Path, case: str
) -> None:
    configs = [compose(*STEPS, *own) for own in CASES[case]]
    found = []
    for device in (CPU, PLACED):
        folders = [tmp_path / f"{device.count}-{index}" for index in range(len(configs))]
        found.append(train_pack(pack_plan(project, configs, folders), device))
    for one, two in zip(*found, strict=True):
        assert isinstance(one, TrainingResult)
        assert isinstance(two, TrainingResult)
        assert (two.losses, two.validations) == (one.losses, one.validations)
        assert two.adapter_sha256 == one.adapter_sha256
        assert two.validation_loss_nats == one.validation_loss_nats
