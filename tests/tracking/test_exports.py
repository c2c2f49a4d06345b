"""What TensorBoard and Weights & Biases are given, read back from their own files."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lorascope.errors import ConfigError
from lorascope.tracking.exported import ExportedRun, exported_runs
from lorascope.tracking.points import Point, evaluation_points, trial_points
from lorascope.tracking.tensorboard import write_tensorboard
from lorascope.tracking.weights_and_biases import write_wandb
from tests.tracking.test_tracking import evaluation, result, trial

WRITERS: dict[str, Callable[[Sequence[ExportedRun], Path], Path]] = {
    "tensorboard": write_tensorboard,
    "wandb": write_wandb,
}
RECORD = trial("e1", outcome=result(steps=5))
SCORES = evaluation(RECORD)
RUNS = exported_runs([RECORD], [SCORES])
POINTS = [p for p in trial_points(RECORD) if p.is_finite] + evaluation_points(SCORES)


def test_a_run_holds_every_number_of_its_records() -> None:
    (run,) = RUNS
    assert Counter(run.points) == Counter(POINTS)
    assert run.experiment == "e1/biographies"
    assert run.params["settings.lora.modules"] == '["q_proj", "v_proj"]'
    assert run.results["train_loss_nats"] == 0.2


@pytest.mark.parametrize("name", WRITERS)
def test_without_its_package_an_export_says_what_to_install(name: str, tmp_path: Path) -> None:
    if find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(ConfigError, match=rf"pip install 'lorascope\[{name}\]'"):
        WRITERS[name](RUNS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tensorboards_files_hold_the_records_numbers_exactly(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    for _ in range(2):
        # A second export replaces the first.
        write_tensorboard(RUNS, tmp_path / "out")
    read: Any = EventAccumulator(
        str(tmp_path / "out/e1/biographies" / RECORD.trial), size_guidance={"tensors": 0}
    )
    read.Reload()
    found = Counter(
        Point(name, make_ndarray(event.tensor_proto).item(), event.step)
        for name in read.Tags()["tensors"]
        for event in read.Tensors(name)
    )
    assert found == Counter(POINTS)


BLOCK_BYTES = 32768
HEAD = struct.Struct("<IHB")
"""Checksum, length and kind of a part: whole, first, middle, last (LevelDB's log format)."""


def logged(file: bytes) -> Iterator[bytes]:
    """The records of a .wandb file, whose first seven bytes are its own."""
    at, record = 7, b""
    while at + HEAD.size <= len(file):
        if BLOCK_BYTES - at % BLOCK_BYTES < HEAD.size:
            at += BLOCK_BYTES - at % BLOCK_BYTES
            continue
        _, length, kind = HEAD.unpack_from(file, at)
        record += file[at + HEAD.size : at + HEAD.size + length]
        at += HEAD.size + length
        if kind in (1, 4):
            yield record
            record = b""


@pytest.mark.slow
def test_wandbs_files_hold_the_records_numbers_exactly(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    write_wandb(RUNS, tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("*.wandb")
    found: Counter[Point] = Counter()
    config: dict[str, str] = {}
    for data in logged(file.read_bytes()):
        record: Any = Record()
        record.ParseFromString(data)
        config |= {i.key: json.loads(i.value_json) for i in record.run.config.update if i.key}
        items = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
        step = int(items.get("_step", "0"))
        found.update(
            Point(k, json.loads(v), step) for k, v in items.items() if not k.startswith("_")
        )
    assert found == Counter(POINTS)
    assert config["settings.train.learning_rate"] == "0.001"
