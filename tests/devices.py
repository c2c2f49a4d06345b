"""The device of tests marked gpu, and how far apart two equal trainings may end there.

They run on a CPU in the ordinary suite, and on CUDA where LORASCOPE_TEST_DEVICE=cuda says so.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from lorascope.config import DeviceKind, Precision, QuantConfig
from lorascope.machine.devices import TORCH_DTYPES, Device, autocast, choose_device
from lorascope.quantizers.loading import compute_precision
from lorascope.records import TrainingResult

CPU = Device("cpu", "cpu")
ASKED = os.environ.get("LORASCOPE_TEST_DEVICE", "cpu")
DEVICE = CPU if ASKED == "cpu" else choose_device(DeviceKind(ASKED))
EXACT = DEVICE.kind == "cpu"
"""Whether equal trainings give equal bits: CUDA sums in another order for other shapes, and in no
fixed order where threads add to one place."""
LOSS_NATS = 0.02
"""Largest gap between losses of two trainings that differ in rounding to 16 bits alone. Each may
be as far from float32 as bfloat16 was on a CPU in these trainings: 0.0076 nats at most."""


def computing(quant: QuantConfig) -> AbstractContextManager[object]:
    """The mixed precision in which a mode is trained on the device."""
    return autocast(DEVICE.kind, TORCH_DTYPES[compute_precision(quant, DEVICE).value])


def in_float32(quant: QuantConfig) -> QuantConfig:
    """The mode with products in float32, as a CPU has them: what other programs are held to."""
    return replace(quant, compute=Precision.float32)


def assert_same_training(ours: TrainingResult, theirs: TrainingResult) -> None:
    """The same steps, with the same numbers: to the bit on a CPU, within `LOSS_NATS` on CUDA."""
    assert ours.processed_tokens == theirs.processed_tokens
    assert [point.step for point in ours.losses] == [point.step for point in theirs.losses]
    if EXACT:
        assert ours.adapter_sha256 == theirs.adapter_sha256
        assert ours.losses == theirs.losses
        return
    expected = [point.loss_nats for point in theirs.losses]
    assert [point.loss_nats for point in ours.losses] == pytest.approx(expected, abs=LOSS_NATS)
    gap = ours.validation_loss_nats - theirs.validation_loss_nats
    assert abs(gap) < LOSS_NATS
