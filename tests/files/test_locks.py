"""Locks on trials' folders: one holder at a time, and none that outlives its process."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lorascope.config import Config
from lorascope.execution import sweep
from lorascope.files.layout import Layout
from lorascope.files.locks import FolderLocked, locked_folder, locked_folders
from lorascope.stages import evaluate
from tests.lock_holder import another_holder

TRIAL = "nf4-r0008-a0.5-s0-0123456789"


def test_a_folder_is_locked_while_the_block_runs_and_free_after_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trial, scores = layout.trials("nf4") / TRIAL, layout.evaluations("nf4") / TRIAL
    assert trial not in locked_folders(layout)
    with locked_folder(trial, layout):
        assert trial in locked_folders(layout)
        # A trial and its scores have one name and two locks.
        assert scores not in locked_folders(layout)
        with locked_folder(scores, layout):
            assert locked_folders(layout) == {trial, scores}
    assert trial not in locked_folders(layout)
    assert locked_folders(layout) == set()
    assert not trial.exists()


def test_a_second_holder_is_refused_by_name_in_the_same_process_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trial = layout.trials("nf4") / TRIAL
    with (
        locked_folder(trial, layout),
        pytest.raises(FolderLocked, match=f"experiments/train/nf4/{TRIAL}: another process"),
        locked_folder(trial, layout, wait_seconds=0),
    ):
        pass
    with pytest.raises(ZeroDivisionError), locked_folder(trial, layout):
        print(1 / 0)
    assert trial not in locked_folders(layout)


def test_another_process_holds_a_lock_until_kill_9_frees_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trial = layout.trials("nf4") / TRIAL
    with another_holder(trial, layout) as (_, process):
        assert trial in locked_folders(layout)
        assert locked_folders(layout) == {trial}
        with pytest.raises(FolderLocked), locked_folder(trial, layout, wait_seconds=0):
            pass
        os.kill(process.pid, signal.SIGKILL)
        # Whoever waits gets it as soon as the system has taken the dead process apart.
        with locked_folder(trial, layout, wait_seconds=None):
            assert trial in locked_folders(layout)
    assert trial not in locked_folders(layout)


def test_a_wait_is_told_once_with_the_folder_and_before_it_begins(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trial = layout.trials("nf4") / TRIAL
    told: list[str] = []
    with locked_folder(trial, layout, wait_seconds=None, on_wait=told.append):
        assert told == []
    with another_holder(trial, layout) as (_, process):

        def tell(sentence: str) -> None:
            told.append(sentence)
            os.kill(process.pid, signal.SIGKILL)

        with locked_folder(trial, layout, wait_seconds=None, on_wait=tell):
            assert told == [
                f"experiments/train/nf4/{TRIAL}: another process is writing it; waiting until it "
                "has ended"
            ]


class Listener(io.StringIO):
    """Standard error for one who waits until somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Event()

    def write(self, text: str) -> int:
        if "waiting" in text:
            self.waiting.set()
        return super().write(text)


def test_a_second_sweep_says_what_it_waits_for_and_ends_with_all_trials_done(
    project: Layout, compose: Callable[..., Config], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = compose("quant=fp16", "lora.rank=1", "seed=79")
    record = sweep.run(config, project)
    folder = project.trials("fp16") / record.trial
    aside = folder.rename(tmp_path / "aside")
    capsys.readouterr()
    heard = Listener()
    monkeypatch.setattr(sys, "stderr", heard)
    with another_holder(folder, project) as (_, process):

        def finish() -> None:
            assert heard.waiting.wait(300)
            aside.rename(folder)
            os.kill(process.pid, signal.SIGKILL)

        other = threading.Thread(target=finish)
        other.start()
        assert sweep.run(config, project) == record
        other.join()
    lines = heard.getvalue().splitlines()
    place = folder.relative_to(project.root)
    assert f"{place}: another process is writing it; waiting until it has ended" in lines
    assert lines[-1].startswith("1/1 trials done")
    told = capsys.readouterr().out
    assert told.startswith(f"trained by another process: {record.trial}: validation loss")


def test_what_another_process_scores_comes_last(
    project: Layout, compose: Callable[..., Config], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    configs = [compose("quant=fp16", "lora.rank=1", f"seed={seed}") for seed in (77, 78)]
    names = [record.trial for record in sweep.run_sweep(configs, project)]
    heard = Listener()
    with another_holder(project.evaluations("fp16") / names[0], project) as (_, process):

        def let_go() -> None:
            assert heard.waiting.wait(300)
            os.kill(process.pid, signal.SIGKILL)

        other = threading.Thread(target=let_go)
        other.start()
        capsys.readouterr()
        monkeypatch.setattr(sys, "stderr", heard)
        records = evaluate.score_trials(configs, project)
        other.join()
    assert [record.name for record in records if record] == names
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == [f"2/2 {names[1]}", f"1/2 {names[0]}"]


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o077, 0o600)])
def test_who_may_wait_for_a_lock_says_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    layout = Layout(tmp_path)
    former = os.umask(umask)
    try:
        with locked_folder(layout.trials("nf4") / TRIAL, layout):
            pass
    finally:
        os.umask(former)
    (lock,) = layout.private.rglob("*.lock")
    assert lock.stat().st_mode & 0o777 == mode
