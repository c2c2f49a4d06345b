"""Records and folders: whole or not at all, and readable back or refused by name."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lorascope.data.rows import PreparedRow, Segment, read_rows, write_rows
from lorascope.errors import RecordError
from lorascope.files.replacing import (
    finish_replacements,
    remove_folder,
    replaced_folder,
    replaced_folders,
    scratch_target,
    write_all_atomically,
    write_atomically,
)
from lorascope.files.revisions import canonical_sha256
from lorascope.files.store import read_record, write_record
from lorascope.records import DataCard, TrialRecord
from tests.study_factory import example_study


def test_a_record_comes_back_equal(tmp_path: Path) -> None:
    for trial in example_study().trials:
        write_record(tmp_path / trial.trial, trial)
        assert read_record(tmp_path / trial.trial, TrialRecord) == trial


def test_a_record_of_format_1_is_read_with_its_dials_under_their_method(tmp_path: Path) -> None:
    trial = example_study().trials[0]
    write_record(tmp_path, trial)
    content = json.loads((tmp_path / "record.json").read_text())
    dials = content["key"].pop("dials")
    assert content["key"].pop("method") == "lora"
    former = {**content, "key": {**content["key"], **dials}, "format": 1}
    del former["record_sha256"]
    text = json.dumps(former, sort_keys=True)
    former["record_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "record.json").write_text(json.dumps(former))
    assert read_record(tmp_path, TrialRecord) == replace(trial, format=1)


def test_a_missing_or_damaged_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no record here"):
        read_record(tmp_path, TrialRecord)
    write_record(tmp_path, example_study().trials[0])
    whole = (tmp_path / "record.json").read_bytes()
    (tmp_path / "record.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match=r"record\.json: not a readable TrialRecord"):
        read_record(tmp_path, TrialRecord)
    (tmp_path / "record.json").write_bytes(whole)
    with pytest.raises(RecordError, match="not a readable DataCard"):
        read_record(tmp_path, DataCard)


def test_a_value_that_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    trial = next(trial for trial in example_study().trials if trial.result)
    assert trial.result is not None
    broken = replace(trial, result=replace(trial.result, validation_loss_nats=float("nan")))
    with pytest.raises(ValueError, match="validation_loss_nats"):
        write_record(tmp_path, broken)
    assert not (tmp_path / "record.json").exists()


def test_rows_with_characters_that_end_lines_elsewhere_come_back(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\u0085four\x0bfive\r\nsix"
    row = PreparedRow("id", [Segment(text, True)], "ask", text)
    write_rows(tmp_path / "rows.jsonl", [row, row])
    assert read_rows(tmp_path / "rows.jsonl") == [row, row]


def test_replacing_a_file_leaves_a_hard_link_to_the_old_one_alone(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"old")
    os.link(tmp_path / "cache", tmp_path / "file")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "cache").read_bytes() == b"old"
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with replaced_folder(target) as scratch:
        (scratch / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), replaced_folder(target) as scratch:
        (scratch / "b").write_text(str(1 / 0))
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_the_canonical_hash_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert canonical_sha256(value) == canonical_sha256(backwards)


def test_a_scratch_folder_tells_what_it_was_made_for(tmp_path: Path) -> None:
    target = tmp_path / "nf4-r0008-a0.5-s0-0123456789"
    with replaced_folder(target) as scratch:
        assert scratch_target(scratch) == target
        assert scratch_target(scratch.with_name(f"{scratch.name}.former")) == target
    for name in (target.name, ".ipynb_checkpoints", ".x", "a.bcdefghi", ".bcdefghi"):
        assert scratch_target(tmp_path / name) is None


def test_a_removed_folder_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "gone" / "deep").mkdir(parents=True)
    (tmp_path / "gone" / "deep" / "file").write_text("1")
    (tmp_path / "kept").mkdir()
    remove_folder(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        remove_folder(tmp_path / "gone")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_several_folders_appear_together_or_not_at_all(tmp_path: Path) -> None:
    targets = [tmp_path / name for name in ("a", "b")]
    targets[1].mkdir()
    (targets[1] / "old").write_text("")

    def interrupted() -> None:
        with replaced_folders(targets) as folders:
            (folders[0] / "new").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "old"]
    with replaced_folders(targets) as folders:
        for folder in folders:
            (folder / "new").write_text("")
        assert not targets[0].exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert [[path.name for path in target.iterdir()] for target in targets] == [["new"], ["new"]]


def test_what_a_kill_left_complete_is_put_in_place(tmp_path: Path) -> None:
    """One moved before the kill, one in the middle of being exchanged, one still to move."""
    scratch = tmp_path / ".a.abcdefgh"
    for name in ("b", "b.former", "c"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / name).write_text("")
    for name in ("a", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "there").write_text("")
    finish_replacements(tmp_path)
    assert not (tmp_path / "b").exists()
    (scratch / ".complete").write_text("")
    finish_replacements(tmp_path)
    found = {path.parent.name: path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"a": "there", "b": "b", "c": "c"}
    assert not scratch.exists()


def test_threads_that_put_the_same_folders_in_place_lose_none(tmp_path: Path) -> None:
    """As packs side by side do where one ends while another starts."""
    for number in range(40):
        scratch = tmp_path / f".trial-{number}.abcdefgh"
        for name in "abc":
            (scratch / f"{number}-{name}").mkdir(parents=True)
            (scratch / f"{number}-{name}" / "weights").write_text("all of them")
        (scratch / ".complete").touch()
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(finish_replacements, tmp_path) for _ in range(8)]
    assert [future.result() for future in done] == [None] * 8
    assert len(list(tmp_path.glob("*/weights"))) == 120
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("umask", "file_mode", "folder_mode"),
    [(0o002, 0o664, 0o775), (0o022, 0o644, 0o755), (0o077, 0o600, 0o700)],
)
def test_files_and_folders_get_what_the_users_umask_leaves(
    tmp_path: Path, umask: int, file_mode: int, folder_mode: int
) -> None:
    """safetensors writes through a temporary file, which is for its owner alone."""
    former = os.umask(umask)
    try:
        write_atomically(tmp_path / "a" / "file", b"")
        with replaced_folder(tmp_path / "one") as scratch:
            save_file({"w": torch.zeros(1)}, scratch / "model.safetensors")
        with replaced_folders([tmp_path / "x" / "two"]) as (folder,):
            (folder / "adapter").mkdir()
            save_file({"w": torch.zeros(1)}, folder / "adapter" / "model.safetensors")
            write_record(folder, example_study().trials[0])
    finally:
        os.umask(former)
    made = list(tmp_path.rglob("*"))
    assert len(made) == 9
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in made}
    assert modes == {True: folder_mode, False: file_mode}
    assert {path.stat().st_mode & 0o777 for path in made} == {file_mode, folder_mode}


def test_several_files_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "in the way").write_bytes(b"")
    new = {tmp_path / "a": b"new", tmp_path / "b": b"new", tmp_path / "in the way" / "c": b"new"}
    with pytest.raises(OSError, match="in the way"):
        write_all_atomically(new)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"old", "in the way": b"",
    }  # fmt: skip
