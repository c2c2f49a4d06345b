"""The environment of a pack's process: no GPU where it is forked, and what CUDA reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import pytest

from lorascope.config import Config, DeviceKind, RuntimeConfig
from lorascope.execution.child import answer, train_in_child
from lorascope.execution.engine import FollowedJob, Job, Outcome, Slot, read_job, write_job
from lorascope.execution.local.slots import PRELOADED, Child
from lorascope.files.layout import Layout
from lorascope.machine.environment import hide_gpus, prepare_environment
from lorascope.training.progress import Progress

READ = ("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF")


def run(body: Callable[[Path], None], folder: Path, fresh: bool = False) -> Outcome:
    child = Child(body, folder, PRELOADED, fresh)
    return FollowedJob(folder, child).wait(lambda event: None, None)


def tell(folder: Path) -> None:
    def work(progress: Progress) -> Outcome:
        print([os.environ.get(name) for name in READ[:1]])
        return Outcome()

    answer(folder, work)


@pytest.mark.parametrize(("fresh", "seen"), [(False, ""), (True, "0,1")])
def test_what_is_forked_sees_no_gpu_whatever_the_parent_sees(
    monkeypatch: pytest.MonkeyPatch, fresh: bool, seen: str
) -> None:
    """A fork server's libraries touch CUDA where they find it; a child that may need it starts
    afresh."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    outcome = run(tell, Path(mkdtemp()), fresh)
    assert outcome.last_lines == [str([seen])]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_cuda_finds_its_settings_and_a_cpu_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepared(device: DeviceKind, deterministic: bool, **before: str) -> dict[str, str]:
        monkeypatch.setattr(os, "environ", dict(before))
        prepare_environment(RuntimeConfig(device, deterministic=deterministic))
        return dict(os.environ)

    expandable = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    workspace = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert prepared(DeviceKind.cpu, False) == {}
    assert prepared(DeviceKind.cuda, False) == expandable
    assert prepared(DeviceKind.cuda, True) == expandable | workspace
    told = {"PYTORCH_CUDA_ALLOC_CONF": "backend:native", "CUBLAS_WORKSPACE_CONFIG": ":16:8"}
    assert prepared(DeviceKind.cuda, True, **told) == told
    hide_gpus()
    assert os.environ == told | {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}


def train_and_tell(folder: Path) -> None:
    def work(progress: Progress) -> Outcome:
        outcome = train_in_child(read_job(folder), progress)
        import torch

        told = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
        print(told, os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        return outcome

    answer(folder, work)


def test_determinism_is_set_where_packs_are_trained_and_changes_nothing_on_a_cpu(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    """That is why it is no part of a trial's identity."""
    words, adapters = [], []
    for wanted in (True, False):
        folder = Path(mkdtemp())
        config = compose("quant=nf4", f"runtime.deterministic={wanted}")
        base, data = project.quantized("small", "nf4"), project.data("small", "toy")
        places = [tmp_path / str(wanted)]
        job = Job(base, "small", data, tmp_path / "none", [config], places, Slot(1, None))
        write_job(folder, job)
        outcome = run(train_and_tell, folder)
        (trial,) = outcome.trials
        assert trial.result is not None
        adapters.append((trial.result.adapter_sha256, trial.result.losses))
        words.append(outcome.last_lines[-1])
    assert words == ["(True, True) :4096:8", "(False, False) None"]
    assert adapters[0] == adapters[1]
