"""Packs that a stopped sweep saved: found by what their folders say, and trained before others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lorascope.adapters.kinds import rank_of
from lorascope.config import Config
from lorascope.execution.packs import TRIALS, Trial, checkpoint_folder, saved_packs
from lorascope.execution.sweep import _trial, _unfinished
from lorascope.files.layout import Layout
from lorascope.training.checkpoint import sign_checkpoint


def save(layout: Layout, identities: Sequence[str], step: int) -> Path:
    """As a pack that was stopped leaves it."""
    with checkpoint_folder(identities, layout) as folder:
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "pack.json").write_text("{}")
        sign_checkpoint(checkpoint)
    return checkpoint


def test_saved_packs_are_found_in_their_order_and_those_with_most_steps_first(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path)
    assert saved_packs(layout, "abc") == []
    save(layout, ["c"], 10)
    save(layout, ["b", "a"], 9)
    save(layout, ["b"], 2)
    assert saved_packs(layout, "abc") == [["b", "a"], ["c"], ["b"]]
    # Trials that are there, or that nobody asks for, are no reason to read a pack's files.
    assert saved_packs(layout, "bc") == [["c"], ["b"]]


def test_a_pack_without_a_checkpoint_leaves_nothing_and_takes_nothing_of_another(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(KeyboardInterrupt), checkpoint_folder(["a", "b"], layout):
        raise KeyboardInterrupt
    assert list(layout.checkpoints.iterdir()) == []
    kept = save(layout, ["a"], 2)
    with checkpoint_folder(["a", "b"], layout) as folder:
        assert (folder / TRIALS).is_file()
    assert [path.name for path in (layout.checkpoints / "a").iterdir()] == [kept.parent.name]
    assert saved_packs(layout, "ab") == [["a"]]


@pytest.mark.parametrize("note", [b"[", b'["a"]', b'{"a": 1}', b"\xff"])
def test_a_pack_whose_note_is_damaged_is_passed_over(tmp_path: Path, note: bytes) -> None:
    layout = Layout(tmp_path)
    checkpoint = save(layout, ["a", "b"], 2)
    (checkpoint.parent / TRIALS).write_bytes(note)
    assert saved_packs(layout, "ab") == []


def test_a_pack_whose_checkpoint_is_damaged_or_going_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    checkpoint = save(layout, ["a", "b"], 2)
    (checkpoint / "pack.json").write_text("{")
    assert saved_packs(layout, "ab") == []
    (checkpoint / "pack.json").write_text("{}")
    assert saved_packs(layout, "ab") == [["a", "b"]]

    def gone(folder: Path) -> Path:
        raise FileNotFoundError(folder)

    monkeypatch.setattr("lorascope.execution.packs.last_checkpoint", gone)
    assert saved_packs(layout, "ab") == []


EVERYTHING = (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize(
    ("saved", "missing", "expected"),
    [
        ({}, EVERYTHING, [[1, 2, 4], [8, 16, 32]]),
        # What this sweep would make goes on, whatever else took more steps.
        ({(1, 2, 4): 2, (1,): 90}, EVERYTHING, [[1, 2, 4], [8, 16, 32]]),
        # Of another sweep, the more work the better.
        ({(1, 16): 5, (1, 2): 4}, EVERYTHING, [[1, 16], [2, 4], [8, 32]]),
        # One of them is there, so that the pack would train it again.
        ({(2, 4, 8): 5}, (1, 4, 8, 16, 32), [[8, 16, 32], [1], [4]]),
        # Too many at once by today's settings.
        ({(1, 2, 4, 8): 5}, EVERYTHING, [[1, 2, 4], [8, 16, 32]]),
    ],
)
def test_saved_packs_come_before_whole_ones_and_these_before_what_is_left(
    project: Layout,
    compose: Callable[..., Config],
    tmp_path: Path,
    saved: dict[tuple[int, ...], int],
    missing: tuple[int, ...],
    expected: list[list[int]],
) -> None:
    layout = Layout(tmp_path)
    trials: dict[int, Trial] = {
        rank: _trial(compose(f"lora.rank={rank}", "runtime.pack_trials=3"), project)
        for rank in EVERYTHING
    }
    for pack, step in saved.items():
        save(layout, [trials[rank].identity for rank in pack], step)
    left = [trials[rank] for rank in missing]
    packs = _unfinished(list(trials.values()), left, 2, layout)
    found = [[rank_of(trial.config.adapter) for trial in pack] for pack in packs]
    assert sorted(found) == sorted(expected)
    works = [sum(trial.work for trial in pack) for pack in packs]
    assert works == sorted(works, reverse=True)
