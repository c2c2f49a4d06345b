"""Layers placed over several devices train, validate, save and answer what they do on one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lorascope.adapters.attach import detach, load_adapter
from lorascope.adapters.placement import placement_of
from lorascope.config import Config, DeviceKind
from lorascope.config.rules import validate
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError, DeviceError
from lorascope.files.layout import Layout
from lorascope.machine.devices import Device, choose_device
from lorascope.objectives.evaluation import evaluation_mode, log_probabilities
from lorascope.quantizers.loading import load_base, load_exact, quantize_base
from lorascope.records import TrainingResult
from lorascope.scoring.generation import Writing, write
from lorascope.study.declared import declare_trial
from lorascope.training.progress import StepReport, Stopped
from lorascope.training.run import train_pack
from tests.devices import CPU
from tests.packs import pack_plan, train_alone

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


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("first", "then"), [(PLACED, CPU), (CPU, PLACED)])
def test_a_checkpoint_goes_on_on_another_number_of_devices(
    project: Layout, compose: Compose, tmp_path: Path, first: Device, then: Device
) -> None:
    config = compose("quant=nf4", "lora.rank=4", "train.steps=6", "train.log_every_steps=1")
    undisturbed = train_alone(pack_plan(project, [config], [tmp_path / "undisturbed"]), CPU)
    plan = pack_plan(project, [config], [tmp_path / "adapter"])
    plan = replace(plan, checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Stopped):
        train_pack(plan, first, lambda own: isinstance(own, StepReport) and own.step == 3)
    result = train_alone(plan, then)
    assert result.resumed_at_step == 3
    assert result.losses == undisturbed.losses
    assert result.adapter_sha256 == undisturbed.adapter_sha256


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["fp16", "int8", "nf4_dq", "int4_sym"])
def test_a_placed_base_answers_what_a_whole_one_answers(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    """As scoring, merge and generate have it: with an adapter, exact too, token by token."""
    config = compose(f"quant={mode}", "lora.rank=4", "train.steps=2")
    train_alone(pack_plan(project, [config], [tmp_path / "adapter"]), CPU)
    folder, ids = project.quantized("small", mode), torch.arange(24).view(2, 12)
    tokenizer, found = load_tokenizer(folder), []
    for device in (CPU, PLACED):
        for load in (load_base, load_exact):
            base = load(folder, config.quant, device)
            placement = placement_of(base)
            assert (None if placement is None else placement.counts) == (
                None if device is CPU else (1, 1)
            )
            model = load_adapter(base, tmp_path / "adapter")
            with evaluation_mode(model):
                found.append(log_probabilities(model, ids, torch.arange(20)))
            answer = write(model, tokenizer, "1 + 1 =", Writing(5), 32).text
            found.append(torch.tensor([ord(letter) for letter in answer]))
            with evaluation_mode(detach(model)):
                found.append(log_probabilities(base, ids, torch.arange(20)))
    whole, placed = found[: len(found) // 2], found[len(found) // 2 :]
    assert all(torch.equal(*pair) for pair in zip(whole, placed, strict=True))


@pytest.mark.parametrize("mode", ["nf4_dq", "int8"])
def test_a_base_is_quantized_over_several_devices_to_the_same_files(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    quantize_base(project.base("small"), compose(f"quant={mode}").quant, PLACED, tmp_path)
    files = [path.name for path in tmp_path.glob("*.safetensors")]
    assert files
    for name in files:
        stored = project.quantized("small", mode) / name
        assert (tmp_path / name).read_bytes() == stored.read_bytes()


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("runtime.shard=2",), "runtime.place"),
        (("runtime.device=cpu",), "runtime.place"),
        (("adapter=ia3",), "runtime.place"),
        (("lora.head=true",), "runtime.place"),
        (("lora.init=pissa",), "runtime.place"),
        (("train.qat=int4_sym",), "runtime.place"),
        (("engine=slurm", "engine.gpus=1"), "engine.gpus"),
        (("engine=ray", "engine.gpus=0"), "engine.gpus"),
    ],
)
def test_what_was_not_shown_on_several_devices_is_refused_by_name(
    compose: Compose, overrides: tuple[str, ...], key: str
) -> None:
    config = compose("quant=fp16", *overrides)
    validate(config)
    config.runtime.place = 2
    with pytest.raises(ConfigError, match=key) as refused:
        validate(config)
    assert "runtime.place at 1" in str(refused.value)


def test_where_layers_lie_is_no_part_of_a_trial(project: Layout, compose: Compose) -> None:
    one, two = (compose("quant=nf4", f"runtime.place={places}") for places in (1, 2))
    assert declare_trial(one, project).identity == declare_trial(two, project).identity
    validate(compose("quant=nf4", "engine=slurm", "engine.gpus=2", "runtime.place=2"))


def test_fewer_devices_than_places_are_an_error() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(DeviceError, match=rf"runtime.place={count + 2}: torch sees {count} CUDA"):
        choose_device(DeviceKind.auto, count + 2)
