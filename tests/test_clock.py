"""A clock that is set back or far ahead: durations stay right, and no record, lock, checkpoint or
scratch folder is judged by its age."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from lorascope.config import Config
from lorascope.execution import sweep
from lorascope.files.layout import RECORD, Layout
from lorascope.files.locks import FolderLocked, locked_folder
from lorascope.files.store import DIGEST
from lorascope.machine.progress import StepProgress
from lorascope.stages import evaluate, report
from lorascope.study.collect import collect
from lorascope.study.grid import expand
from lorascope.study.params import declared_overrides
from tests.conftest import run_command
from tests.execution.test_isolation import run as run_isolated
from tests.execution.test_isolation import sleep
from tests.packs import plan_for, train_alone

YEAR_SECONDS = 365 * 24 * 3600.0


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock shows a year earlier than the one before."""
    years = count()
    start = time.time()
    monkeypatch.setattr(time, "time", lambda: start - YEAR_SECONDS * next(years))


def test_a_training_while_the_clock_runs_backwards_has_true_durations(
    project: Layout, compose: Callable[..., Config], tmp_path: Path, backwards: None
) -> None:
    config = compose("quant=fp16", "train.checkpoint_every_steps=2")
    plan = plan_for(project, config, tmp_path / "adapter")
    started = time.perf_counter()
    result = train_alone(replace(plan, checkpoints=tmp_path / "checkpoints"))
    most = time.perf_counter() - started
    for seconds in (result.load_seconds, result.train_seconds, result.evaluate_seconds):
        assert 0 < seconds < most
    assert result.tokens_per_second > 0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-4"]


def test_time_limits_do_not_ask_the_clock(recorded: Layout, backwards: None) -> None:
    started = time.perf_counter()
    assert run_isolated(sleep, 2.0).timed_out
    target = recorded.trials("nf4") / "one"
    with locked_folder(target, recorded), pytest.raises(FolderLocked):
        locked_folder(target, recorded, wait_seconds=0.2).__enter__()
    assert 2.2 < time.perf_counter() - started < 30


def test_the_time_left_is_never_negative(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, backwards: None
) -> None:
    monkeypatch.setattr("lorascope.machine.progress.LINE_INTERVAL_SECONDS", 0.0)
    show = StepProgress("title")
    for step in range(1, 5):
        show(step, 4, 1.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert not [line for line in lines if "-" in line]


@pytest.mark.parametrize("years", [-40, -1, 1])
def test_times_of_files_decide_nothing(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str], years: int
) -> None:
    config = compose("quant=fp16", "seed=77")
    first = sweep.run(config, project), evaluate.command([config], project)[0]
    then = time.time() + years * YEAR_SECONDS
    for top in ("experiments", "models", "data", ".lorascope"):
        for path in (project.root / top).rglob("*"):
            os.utime(path, (then, then))
    capsys.readouterr()
    assert (sweep.run(config, project), evaluate.command([config], project)[0]) == first
    told = capsys.readouterr().out
    assert "completed already" in told
    assert told.count("scored already") == 2


@pytest.mark.parametrize("years", [-1, 1])
def test_scratch_of_a_live_process_stays_however_old_it_looks(
    recorded: Layout, capsys: pytest.CaptureFixture[str], years: int
) -> None:
    target = next(recorded.trials("nf4").glob("nf4-*"))
    scratch = target.with_name(f".{target.name}.abcdefgh")
    scratch.mkdir()
    then = time.time() + years * YEAR_SECONDS
    os.utime(scratch, (then, then))
    with locked_folder(target, recorded):
        run_command(recorded, "prune", "--yes")
        assert scratch.is_dir()
        assert "In use now, stays" in capsys.readouterr().out
    run_command(recorded, "prune", "--yes")
    assert not scratch.exists()


def test_records_whose_times_run_backwards_give_the_same_tables(recorded: Layout) -> None:
    configs = expand(recorded, declared_overrides(recorded))
    report.command(configs, recorded)
    before = {path.name: path.read_bytes() for path in recorded.reports.glob("*.csv")}
    for year, path in enumerate(sorted(recorded.root.glob(f"experiments/*/*/*/{RECORD}"))):
        values = json.loads(path.read_text())
        values["provenance"]["created_utc"] = f"{2040 - year}-01-01T00:00:00+00:00"
        # A record of before, which has no digest of itself.
        del values[DIGEST]
        path.write_text(json.dumps(values))
    report.command(configs, recorded)
    assert {path.name: path.read_bytes() for path in recorded.reports.glob("*.csv")} == before
    assert len(collect(configs, recorded).trials) == 4
