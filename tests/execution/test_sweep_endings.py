"""How a sweep ends, by exit code and sentence, when trials diverge, do not fit, take too long, run
out of memory or crash: each is a record, and only a crash is the sweep's failure too."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from lorascope.config import Config
from lorascope.execution import sweep as sweeps
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.records import Status, TrialRecord
from tests.command_line import lorascope
from tests.conftest import BASE_OVERRIDES


def sweep(project: Layout, *overrides: str) -> subprocess.CompletedProcess[str]:
    return lorascope(project, "train-lora", "-m", *BASE_OVERRIDES, *overrides)


def records(project: Layout, seed: int) -> list[TrialRecord]:
    found = sorted(project.root.glob(f"experiments/train/*/*-s{seed}-*/{RECORD}"))
    return [read_record(path.parent, TrialRecord) for path in found]


@pytest.mark.slow
def test_trials_that_diverge_or_do_not_fit_are_told_and_no_failure(project: Layout) -> None:
    done = sweep(
        project, "quant=nf4", "lora.rank=1,512", "train.learning_rate=1e-2,1e30", "seed=300",
        "runtime.memory_limit_gb=0.003",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ended = {(r.key.dials["rank"], r.status) for r in records(project, 300)}
    assert ended == {(1, Status.completed), (1, Status.diverged), (512, Status.refused)}
    for record in records(project, 300):
        told = next(line for line in done.stdout.splitlines() if line.startswith(record.trial))
        assert record.status is Status.completed or f"{record.status}, {record.reason}" in told


@pytest.mark.slow
def test_a_trial_that_takes_too_long_is_told_and_no_failure(project: Layout) -> None:
    limit = "runtime.trial_timeout_seconds=3"
    done = sweep(project, "quant=fp16", "lora.rank=16", "train.steps=1000000", "seed=301", limit)
    assert done.returncode == 0, done.stderr
    assert "timeout, no result within runtime.trial_timeout_seconds=3" in done.stdout


@pytest.mark.slow
def test_a_crash_is_a_record_with_its_last_lines_and_exit_code_2(project: Layout) -> None:
    # Known to no one, and judged by `check` alone, which did not run.
    done = sweep(
        project, "quant=fp16,nf4", "lora.rank=16", "model.attention=flash_attention_2", "seed=302"
    )
    crashed = records(project, 302)
    assert [record.status for record in crashed] == [Status.failed] * 2, done.stderr
    assert done.returncode == 2
    assert "2 trials or packs failed" in done.stderr
    assert all(record.trial in done.stderr and record.last_lines for record in crashed)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_pack_that_gets_no_more_memory_is_trained_in_halves(
    project: Layout, compose: Callable[..., Config]
) -> None:
    # Values, gradients and moments of one take 17 MB.
    configs = [compose("quant=fp16", "lora.rank=512", f"seed={seed}") for seed in range(310, 326)]
    limited: list[int] = []

    def limit_first_child() -> None:
        deadline = time.monotonic() + 60
        while not limited and time.monotonic() < deadline:
            # Others, such as git, come and go.
            with suppress(psutil.NoSuchProcess):
                for server in psutil.Process().children():
                    for child in server.children():
                        # It must have begun: a child without threads is still being made.
                        if child.num_threads() > 1 and not limited:
                            most = child.memory_info().vms + 160 * 2**20
                            resource.prlimit(child.pid, resource.RLIMIT_AS, (most, most))
                            limited.append(child.pid)
            time.sleep(0.02)

    limiter = threading.Thread(target=limit_first_child)
    limiter.start()
    trained = sweeps.run_sweep(configs, project)
    limiter.join()
    assert limited
    results = [record.result for record in trained]
    assert [result and result.trials_at_once for result in results] == [8] * 16
