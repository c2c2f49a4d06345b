"""A pack that several processes train: its sweep, its death, its resuming, what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lorascope.config import Config
from lorascope.config.rules import validate
from lorascope.config.shard_rules import idle_devices
from lorascope.errors import ConfigError
from lorascope.execution.child import answer
from lorascope.execution.engine import OUTCOME, Failure, Job, Outcome, Slot, TrialOutcome
from lorascope.execution.shards import train_divided
from lorascope.execution.sweep import run
from lorascope.files.layout import Layout
from lorascope.machine.memory import MemoryLimit
from lorascope.machine.ranks import Ranks, Share
from lorascope.planning.fits import limit_of_one
from lorascope.records import Status, TrialRecord
from lorascope.training.progress import Progress, unwatched
from tests.conftest import compose_one

Compose = Callable[..., Config]

TRAINED = Outcome([TrialOutcome(Status.diverged, "at step 2", None, "cpu", 1)])


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("quant=nf4",), "runtime.shard"),
        (("quant=int8_sym",), "runtime.shard"),
        (("adapter=full",), "runtime.shard"),
        (("lora.dora=true",), "runtime.shard"),
        (("lora.init=pissa",), "runtime.shard"),
        (("adapter=vera", "vera.dropout=0.1"), "runtime.shard"),
        (("train.qat=int4_sym",), "runtime.shard"),
        (("lora.head=true", "lora.dropout=0.1"), "runtime.shard"),
        (("engine=slurm", "engine.gpus=1"), "engine.gpus"),
        (("engine=ray", "engine.gpus=1"), "engine.gpus"),
    ],
)
def test_what_is_not_shown_equal_is_refused_by_name(
    compose: Compose, overrides: tuple[str, ...], key: str
) -> None:
    config = compose("quant=fp16", *overrides)
    validate(config)
    config.runtime.shard = 2
    with pytest.raises(ConfigError, match=key) as refused:
        validate(config)
    assert "runtime.shard at 1" in str(refused.value)


@pytest.mark.parametrize(("samples", "idle"), [(1, 2), (2, 1), (3, 0), (4, 0)])
def test_devices_without_a_sample_are_named(compose: Compose, samples: int, idle: int) -> None:
    words = ("train.batch_size=12", "runtime.shard=3", f"train.micro_batch_size={samples}")
    found = idle_devices(compose("quant=fp16", *words))
    expected = f"train.micro_batch_size={samples}: of each micro-batch {idle} of 3 devices have"
    assert (found is None) if idle == 0 else (expected in str(found))


def test_a_form_that_is_served_on_one_device_may_be_quantized(compose: Compose) -> None:
    validate(compose("quant=fp16", "serve=nf4", "runtime.shard=2"))


def test_prompts_begin_with_nothing_of_layers(compose: Compose) -> None:
    validate(compose("quant=fp16", "adapter=prompt", "runtime.shard=2"))


def test_samples_are_shared_without_a_gap() -> None:
    for samples in range(1, 9):
        shares = [Ranks(rank, 3).share(samples) for rank in range(3)]
        own = [n for s in shares if not s.idle for n in range(s.first, s.first + s.count)]
        assert own == list(range(samples))
        assert all(share.count == 1 for share in shares if share.idle)
    assert Ranks(2, 3).share(2) == Share(0, 1, 2, idle=True)


class Ending:
    """How one of two processes ends; the other would wait for it for ever."""

    def __init__(self, end: Callable[[], Outcome], first: Outcome | None = None) -> None:
        self.end, self.first = end, first

    def __call__(self, job: Job, progress: Progress, ranks: Ranks) -> Outcome:
        if ranks.rank == 1:
            return self.end()
        if self.first is None:
            # As gloo does, once it has lost the other.
            time.sleep(0.2)
            raise RuntimeError("Connection closed by peer")
        return self.first


def killed() -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def failed() -> Outcome:
    raise ConfigError("lora.rank", 0, "too small", "Try 8.")


def full() -> Outcome:
    return Outcome([TrialOutcome(Status.out_of_memory, "CUDA out of memory", None)])


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (killed, Outcome(exit_signal=9)),
        (full, full()),
        (failed, Outcome(failure=Failure("lora.rank=0: too small. Try 8.", is_input=True))),
    ],
)
def test_what_ended_one_process_ends_the_pack(
    tmp_path: Path, compose: Compose, end: Callable[[], Outcome], expected: Outcome
) -> None:
    job = Job(tmp_path, "", tmp_path, tmp_path, [compose("quant=fp16", "runtime.shard=2")], [],
              Slot(1, None))  # fmt: skip
    assert train_divided(tmp_path, job, unwatched, Ending(end), answer) == expected
    assert not (tmp_path / OUTCOME).exists()


BEFORE_FORKS = """
import sys, tempfile
from pathlib import Path
from lorascope.execution import child
from lorascope.execution.engine import Outcome, Slot, write_job, Job
from lorascope.machine import environment
from lorascope.training.progress import unwatched
from tests.conftest import compose_one
from lorascope.files.layout import Layout

# As where a driver of a GPU is.
environment.GPU_FILES = ("null",)

def at_the_fork(folder, job, progress, work, answer):
    print("bitsandbytes" in sys.modules, "torch" in sys.modules)
    return Outcome()

child.train_divided = at_the_fork
folder = Path(tempfile.mkdtemp())
config = compose_one(Layout(Path(sys.argv[1])), "quant=fp16", "runtime.shard=2", *sys.argv[2:])
write_job(folder, Job(folder, "", folder, folder, [config], [], Slot(1, None)))
child.train_followed(folder, unwatched)
"""


@pytest.mark.parametrize(("device", "imported"), [("auto", "False"), ("cpu", "True")])
def test_no_library_begins_cuda_before_processes_are_forked(
    bare_project: Layout, device: str, imported: str
) -> None:
    """A fork of a process that began CUDA cannot use it, and bitsandbytes begins it at its
    import."""
    words = (str(bare_project.root), f"runtime.device={device}")
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_FORKS, *words], capture_output=True, text=True
    )
    assert done.stdout.split()[:1] == [imported], done.stderr


@pytest.mark.parametrize(("device", "own"), [("cpu", 50), ("cuda", 100)])
def test_processes_divide_ram_and_each_has_its_own_gpu(device: str, own: int) -> None:
    assert limit_of_one(MemoryLimit(100, "stated"), 2, device).bytes == own
    assert limit_of_one(MemoryLimit(100, "stated"), 1, device).bytes == 100


def divided(project: Layout, seed: int, shards: int = 2) -> TrialRecord:
    config = compose_one(
        project, "quant=fp16", "lora.rank=4", f"seed={seed}", f"runtime.shard={shards}",
        "train.steps=60", "train.checkpoint_every_steps=5", "runtime.threads=2",
    )  # fmt: skip
    return run(config, project)


def checkpoints(project: Layout) -> set[Path]:
    return set(project.checkpoints.glob("*/*/checkpoint-*/sha256"))


def kill_a_process(project: Layout, before: set[Path]) -> None:
    """Kill one of the two that train, once there is a checkpoint that was not there `before`."""
    while not checkpoints(project) - before:
        time.sleep(0.01)
    every = psutil.Process().children(recursive=True)
    pairs = [own.children() for own in every]
    (pair,) = [own for own in pairs if len(own) == 2 and not own[0].children()]
    pair[1].kill()


@pytest.mark.slow
def test_a_sweep_goes_on_after_one_process_was_killed_and_ends_with_the_same_bits(
    project: Layout,
) -> None:
    undisturbed = divided(project, 870)
    folder = project.trials("fp16") / undisturbed.trial
    assert undisturbed.provenance.shards == 2
    assert undisturbed.result is not None
    assert undisturbed.plan is not None
    assert undisturbed.plan.shards == 2
    shutil.rmtree(folder)
    watcher = threading.Thread(target=kill_a_process, args=(project, checkpoints(project)))
    watcher.start()
    dead = divided(project, 870)
    watcher.join()
    assert dead.status is Status.killed
    again = divided(project, 870)
    assert again.result is not None
    assert again.result.resumed_at_step >= 5
    assert again.result.adapter_sha256 == undisturbed.result.adapter_sha256
    shutil.rmtree(folder)
