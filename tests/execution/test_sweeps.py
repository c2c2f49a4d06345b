"""A sweep's packs: which trials come together, and what becomes of them when something fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lorascope.adapters.kinds import rank_of
from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.execution import sweep as sweeps
from lorascope.execution.packs import Trial, packs_of, work_at_rank
from lorascope.files.layout import Layout
from lorascope.records import Status
from tests.conftest import BASE_OVERRIDES

Compose = Callable[..., Config]


def ranks(packs: list[list[Trial]]) -> list[list[int]]:
    return [[rank_of(trial.config.adapter) for trial in pack] for pack in packs]


def test_packs_hold_what_shares_base_data_and_steps_by_rank(
    project: Layout, compose: Compose
) -> None:
    own = ("seed=1", "lora.alpha=3", "lora.dropout=0.1", "train.learning_rate=1e-3")
    together = [compose("lora.rank=64"), compose("lora.rank=1"), compose("lora.rank=8", *own)]
    apart = [compose("quant=int8"), compose("train.steps=7"), compose("lora.dora=true")]
    packs = packs_of([sweeps._trial(config, project) for config in [*together, *apart]])
    assert ranks(packs) == [[1, 8, 64], [16], [16], [16]]


@pytest.mark.parametrize(
    ("most", "slots", "hidden_size", "expected"),
    [
        (32, 1, None, [[1, 2, 4, 8, 16, 32, 64, 128]]),
        (3, 1, None, [[1, 2, 4], [8, 16], [32, 64, 128]]),
        (32, 2, None, [[1, 2, 4, 8], [16, 32, 64, 128]]),
        # High ranks take longer where the base is narrow: the slots end together.
        (32, 2, 128, [[1, 2, 4, 8, 16], [32, 64, 128]]),
        (32, 2, 4096, [[1, 2, 4, 8], [16, 32, 64, 128]]),
        # No slot is left alone with an odd pack.
        (3, 2, None, [[1, 2], [4, 8], [16, 32], [64, 128]]),
        (1, 2, 128, [[rank] for rank in (1, 2, 4, 8, 16, 32, 64, 128)]),
    ],
)
def test_packs_are_of_neighbours_and_take_equally_long(
    project: Layout,
    compose: Compose,
    most: int,
    slots: int,
    hidden_size: int | None,
    expected: list[list[int]],
) -> None:
    own = [compose(f"lora.rank={2**i}", f"runtime.pack_trials={most}") for i in (5, 0, 3, 7, 2, 1)]
    configs = [*own, *(compose(f"lora.rank={r}", f"runtime.pack_trials={most}") for r in (16, 64))]

    def work(config: Config) -> float:
        return work_at_rank(rank_of(config.adapter), hidden_size) if hidden_size else 1.0

    trials = [replace(sweeps._trial(config, project), work=work(config)) for config in configs]
    found = packs_of(trials, slots)
    assert [sorted(pack) for pack in ranks(found)] == expected


def test_a_schedule_that_ends_at_a_rate_keeps_rates_apart(
    project: Layout, compose: Compose
) -> None:
    configs = [
        compose("train.schedule=polynomial", f"train.learning_rate={rate}") for rate in (1e-3, 2e-3)
    ]
    assert len(packs_of([sweeps._trial(config, project) for config in configs])) == 2


@pytest.mark.slow
def test_a_pack_that_is_killed_is_trained_in_halves(project: Layout, compose: Compose) -> None:
    configs = [compose("quant=fp16", "train.steps=400", f"seed={seed}") for seed in (70, 71, 72)]
    killed: list[int] = []

    def kill_first_child() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            # One that ends meanwhile is not the pack's: that trains for seconds.
            with suppress(psutil.NoSuchProcess):
                # The fork server's own child is the pack's.
                for server in psutil.Process().children():
                    for child in server.children():
                        # It must have begun: a child without threads is still being made.
                        if child.num_threads() > 1:
                            os.kill(child.pid, signal.SIGKILL)
                            killed.append(child.pid)
                            return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_first_child)
    killer.start()
    records = sweeps.run_sweep(configs, project)
    killer.join()
    assert killed
    assert [record.status for record in records] == [Status.completed] * 3
    together = sorted(len(record.result.pack_ranks) for record in records if record.result)
    assert together == [1, 2, 2]


@pytest.mark.slow
def test_sweeps_over_one_folder_divide_the_packs_and_one_that_is_killed_leaves_none(
    project: Layout,
) -> None:
    """As on several computers that share it: the same command, and both end well."""
    command = [
        str(Path(sys.executable).parent / "lorascope"), "train-lora", "-m", *BASE_OVERRIDES,
        "quant=nf4", "lora.rank=2,4", "seed=980,981,982", "runtime.pack_trials=2",
        "runtime.packs_at_once=1", "train.steps=30",
    ]  # fmt: skip
    first, second = (
        subprocess.Popen(command, cwd=project.root, text=True, stdout=subprocess.PIPE)
        for _ in range(2)
    )
    assert first.stdout is not None
    told = "".join(iter_until(first.stdout, "validation loss"))
    first.kill()
    told += first.communicate()[0]
    rest = second.communicate(timeout=120)[0]
    assert second.returncode == 0
    mine, others, found = (
        set(re.findall(rf"(?m)^{before}(nf4-\S+): validation", text))
        for before, text in (("", told), ("", rest), ("trained by another process: ", rest))
    )
    assert mine
    assert others
    # None is trained twice, and none is lost.
    assert mine <= found
    assert not found & others
    assert len(found | others) == 6
    assert len(list(project.trials("nf4").glob("*-s98[0-2]-*/record.json"))) == 6


def iter_until(lines: Iterable[str], word: str) -> Iterator[str]:
    """Lines, the first one that holds `word` included."""
    for line in lines:
        yield line
        if word in line:
            return


def test_a_timeout_ends_a_pack_and_keeps_its_checkpoints(project: Layout, compose: Compose) -> None:
    shared = ("quant=fp16", "train.steps=100000", "train.checkpoint_every_steps=5")
    limit = "runtime.trial_timeout_seconds=4"
    configs = [compose(*shared, limit, f"seed={seed}") for seed in (80, 81)]
    records = sweeps.run_sweep(configs, project)
    assert [record.status for record in records] == [Status.timeout] * 2
    assert "for each of 2 trials" in str(records[0].reason)
    assert list((project.checkpoints / records[0].identity).glob("*/checkpoint-*"))


def test_trials_that_do_not_fit_are_refused_one_by_one_and_others_trained(
    project: Layout, compose: Compose
) -> None:
    tight = "runtime.memory_limit_gb=0.003"
    configs = [compose("quant=nf4", f"lora.rank={rank}", "seed=90", tight) for rank in (1, 512)]
    small, large = sweeps.run_sweep(configs, project)
    assert small.status is Status.completed
    assert large.status is Status.refused
    assert large.plan is not None


def test_bad_input_of_one_pack_leaves_the_others_to_be_trained(
    project: Layout, compose: Compose
) -> None:
    bad = compose("quant=int8", "lora.dora=true", "seed=95", "runtime.device=cpu")
    good = compose("quant=nf4", "seed=95")
    with pytest.raises(LorascopeError, match="DoRA cannot be trained"):
        sweeps.run_sweep([bad, good], project)
    found: list[Path] = list(project.trials("nf4").glob("*-s95-*"))
    assert len(found) == 1


def test_a_sweep_that_is_refused_leaves_no_process(project: Layout, tmp_path: Path) -> None:
    """Libraries are being imported from its first moment on."""
    tool = str(Path(sys.executable).parent / "lorascope")
    told = tmp_path / "told"
    # Not a pipe: reading it to its end would wait for all that hold it.
    with told.open("w") as stream:
        refused = subprocess.Popen(
            [tool, "train-lora", "-m", *BASE_OVERRIDES, "lora.rank=0"], cwd=project.root,
            stderr=stream, start_new_session=True,
        )  # fmt: skip
    assert refused.wait(60) == 2
    assert "lora.rank" in told.read_text()
    deadline = time.monotonic() + 1
    while left := [process for process in psutil.process_iter() if runs_for(process, refused.pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def runs_for(process: psutil.Process, session: int) -> bool:
    """Whether it is alive and in this session."""
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
