"""Packs that a stopped sweep saved: found by what their folders say, damaged ones passed over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lorascope.checkpoint_files import sign_checkpoint
from lorascope.layout import Layout
from lorascope.stages.saved_packs import TRIALS, checkpoint_folder, saved_packs


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
    assert saved_packs(layout) == []
    save(layout, ["b", "a"], 9)
    save(layout, ["c"], 10)
    save(layout, ["b"], 2)
    assert saved_packs(layout) == [["c"], ["b", "a"], ["b"]]


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
    assert saved_packs(layout) == [["a"]]


@pytest.mark.parametrize("note", [b"[", b'["a"]', b'{"a": 1}', b"\xff"])
def test_a_pack_whose_note_is_damaged_is_passed_over(tmp_path: Path, note: bytes) -> None:
    layout = Layout(tmp_path)
    checkpoint = save(layout, ["a", "b"], 2)
    (checkpoint.parent / TRIALS).write_bytes(note)
    assert saved_packs(layout) == []


def test_a_pack_whose_checkpoint_is_damaged_or_going_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    checkpoint = save(layout, ["a", "b"], 2)
    (checkpoint / "pack.json").write_text("{")
    assert saved_packs(layout) == []
    (checkpoint / "pack.json").write_text("{}")
    assert saved_packs(layout) == [["a", "b"]]

    def gone(folder: Path) -> Path:
        raise FileNotFoundError(folder)

    monkeypatch.setattr("lorascope.stages.saved_packs.last_checkpoint", gone)
    assert saved_packs(layout) == []
