"""What `summary` printed is printed again as long as nothing that it says can have changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.comparing.findings import compare
from lorascope.comparing.ruling import Findings
from lorascope.errors import RecordError
from lorascope.files import kept as kept_file
from lorascope.files.kept import Kept, code_state, keeping
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record, sha256_of_file, write_record
from lorascope.records import EvaluationRecord
from lorascope.scoring.items import read_items, summarize, write_items
from lorascope.stages import report, summary
from lorascope.study.collect import collect
from lorascope.study.grid import expand
from lorascope.study.kept_summary import files_stamp, points_key
from lorascope.study.params import declared_overrides
from tests.recorded_project import make_recorded


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    found = make_recorded(tmp_path / "study")
    monkeypatch.chdir(found.root)
    _age(found)
    return found


def _age(layout: Layout) -> None:
    """As if all was written long before this process began."""
    for path in layout.root.rglob("*"):
        written = path.stat().st_mtime - 10**7
        os.utime(path, (written, written))


def _printed(layout: Layout, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    summary.command([], layout, {}, words)
    return capsys.readouterr().out


def test_report_keeps_what_summary_then_prints(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    made = _printed(layout, capsys)
    kept = json.loads(layout.last_summary.read_text())
    layout.last_summary.unlink()
    report.command(expand(layout, declared_overrides(layout)), layout)
    capsys.readouterr()
    assert json.loads(layout.last_summary.read_text()) == kept
    layout.last_summary.write_text(json.dumps({**kept, "text": "the kept one"}))
    assert _printed(layout, capsys) == "the kept one\n"
    assert "Ship" in made


def _other_score(layout: Layout) -> None:
    folder = next(path for path in layout.evaluations("nf4").glob("nf4-*") if path.is_dir())
    record = read_record(folder, EvaluationRecord)
    write_record(folder, record)
    os.utime(folder / RECORD, (1e9, 1e9))


def _other_rule(layout: Layout) -> None:
    layout.params.write_text(layout.params.read_text() + "# changed\n")
    os.utime(layout.params, (1e9, 1e9))


def _of_the_environment(layout: Layout) -> None:
    path = layout.conf / "decide/default.yaml"
    path.write_text(path.read_text() + "# ${oc.env:HOME}\n")
    os.utime(path, (1e9, 1e9))


def _on_another_disk(layout: Layout) -> None:
    """A folder becomes a link, and what it points to changes."""
    folder = layout.evaluations("nf4")
    folder.rename(layout.root / "elsewhere")
    folder.symlink_to(layout.root / "elsewhere")
    _printed_text(layout)
    next((layout.root / "elsewhere").glob("nf4-*/record.json")).unlink()


def _printed_text(layout: Layout) -> None:
    summary.command([], layout, {}, ())
    kept = json.loads(layout.last_summary.read_text())
    layout.last_summary.write_text(json.dumps({**kept, "text": "the kept one"}))


def _lost_trial(layout: Layout) -> None:
    next(layout.trials("nf4").glob("*/record.json")).unlink()


@pytest.mark.parametrize(
    "change",
    [_other_score, _other_rule, _lost_trial, _of_the_environment, _age, _on_another_disk],
)
def test_summary_is_made_again_after_any_change(
    layout: Layout, capsys: pytest.CaptureFixture[str], change: Callable[[Layout], None]
) -> None:
    _printed_text(layout)
    change(layout)
    capsys.readouterr()
    again = _printed(layout, capsys)
    assert "the kept one" not in again
    assert "Report: reports/report.html" in again


def test_other_words_and_young_files_have_no_kept_summary(layout: Layout) -> None:
    assert files_stamp(layout, []) == files_stamp(layout, [])
    assert files_stamp(layout, []) != files_stamp(layout, ["quant=nf4"])
    assert files_stamp(layout, ["decide.margin_accuracy=${oc.env:M}"]) is None
    layout.params.touch()
    # Written since this process began: it may have read what stood there before.
    assert files_stamp(layout, []) is None


def test_what_cannot_be_kept_is_printed_all_the_same(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    layout.private.rmdir() if layout.private.is_dir() else None
    layout.private.write_text("a file where the folder would be")
    assert "Report: reports/report.html" in _printed(layout, capsys)


def _findings(layout: Layout) -> Findings:
    configs = expand(layout, declared_overrides(layout))
    return compare(collect(configs, layout, distributions=False))


def test_findings_from_kept_values_are_those_of_the_files(layout: Layout) -> None:
    plain = _findings(layout)
    for _ in range(2):
        with keeping(layout.kept, trusts_times=True):
            assert repr(_findings(layout)) == repr(plain)
    state = code_state()
    # The second time all was there: no kind of value is one that a reading refuses.
    assert state
    assert Kept(layout.kept, state, True).values


def test_one_changed_record_changes_what_is_said_of_it(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _printed(layout, capsys)
    folder = next(path for path in layout.evaluations("nf4").glob("nf4-*") if path.is_dir())
    items = read_items(folder / "test.jsonl")
    wrong = [replace(item, correct=False) for item in items]
    record = read_record(folder, EvaluationRecord)
    write_items(folder / "test.jsonl", wrong)
    digest = sha256_of_file(folder / "test.jsonl")
    with_wrong = replace(
        record,
        splits=record.splits | {"test": summarize(wrong)},
        items_sha256=record.items_sha256 | {"test": digest},
    )
    write_record(folder, with_wrong)
    _age(layout)
    after = _printed(layout, capsys)
    layout.kept.unlink()
    _age(layout)
    assert _printed(layout, capsys) == after != before


def test_items_that_were_kept_are_held_against_their_file(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_file, "SETTLED_SECONDS", -1.0)
    summary.command([], layout, {}, ())
    file = next(layout.evaluations("nf4").glob("nf4-*/test.jsonl"))
    times = file.stat().st_mtime_ns
    content = file.read_bytes()
    other = content.replace(b'"loss_nats": 1.1', b'"loss_nats": 1.2', 1)
    assert len(other) == len(content)
    assert other != content
    file.write_bytes(other)
    os.utime(file, ns=(times, times))
    with pytest.raises(RecordError, match="damaged or exchanged"):
        summary.command([], layout, {}, ())


@pytest.mark.parametrize("place", ["params.yaml", "conf/decide/default.yaml"])
def test_points_have_the_key_of_their_files(layout: Layout, place: str) -> None:
    before = points_key(layout, ["seed=1"])
    assert before is not None
    assert points_key(layout, ["seed=1"]) == before
    assert points_key(layout, ["seed=2"]) != before
    path, former = layout.root / place, (layout.root / place).read_text()
    path.write_text(former + "# changed\n")
    assert points_key(layout, ["seed=1"]) != before
    path.write_text(former)
    assert points_key(layout, ["seed=1"]) == before
    path.write_text(former + "# ${oc.env:HOME}\n")
    assert points_key(layout, ["seed=1"]) is None
