"""Locks on trials' folders: one holder at a time, and none that outlives its process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lorascope.layout import Layout
from lorascope.trial_locks import FolderLocked, locked_folder, locked_folders
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
