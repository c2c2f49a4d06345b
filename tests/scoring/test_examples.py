"""Answers that are kept: whose, to which prompts, and what they leave as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.errors import RecordError
from lorascope.files.layout import EXAMPLES_FILE, RECORD, Layout
from lorascope.files.store import read_record
from lorascope.records import EvaluationRecord, Example, ExamplesRecord
from lorascope.stages import evaluate, report
from lorascope.study.collect import collect
from lorascope.study.declared import evaluation_identity
from lorascope.study.leading import leading
from tests.conftest import TRIAL, compose_one, run_command

ASKED = ("evaluate.examples=3", "evaluate.example_tokens=4")


def kept(layout: Layout) -> dict[str, list[Example]]:
    return {
        folder.name: [Example(**json.loads(line)) for line in lines.splitlines()]
        for folder in sorted(layout.examples("nf4").iterdir())
        if (lines := (folder / EXAMPLES_FILE).read_text())
    }


def test_base_and_leading_trial_answer_the_same_test_prompts(
    study: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, config = compose_one(study, *TRIAL), compose_one(study, *TRIAL, *ASKED)
    scores = {p: p.read_bytes() for p in study.evaluations("nf4").rglob("*") if p.is_file()}
    page = (study.reports / "report.html").read_bytes()
    assert b'id="says"' not in page
    evaluate.command([config], study)
    # What is kept beside the scores is no part of them.
    assert {p: p.read_bytes() for p in scores} == scores
    assert evaluation_identity(config, study, None) == evaluation_identity(plain, study, None)
    answers = kept(study)
    base, trial = answers.values()
    assert [name.partition("-")[0] for name in answers] == ["base", "nf4"]
    rows = {row.item: row for row in read_rows(study.data("small", "toy") / "test.jsonl")}
    assert [one.item for one in base] == [one.item for one in trial] == sorted(rows)[:3]
    assert [one.reference for one in trial] == [
        rows[one.item].completion.removesuffix("<eos>").strip() for one in trial
    ]
    assert all(one.tokens <= 4 for one in (*base, *trial))
    written = {p: p.stat().st_mtime_ns for p in study.examples("nf4").rglob("*")}
    evaluate.command([config], study)
    assert {p: p.stat().st_mtime_ns for p in study.examples("nf4").rglob("*")} == written
    report.command([config], study)
    page = (study.reports / "report.html").read_bytes()
    assert page.count(b'<details class="asked"') == 3
    assert "## What the model says" in (study.reports / "report.md").read_text()
    capsys.readouterr()
    run_command(study, "prune", *TRIAL[:2], "lora.alpha=16")
    assert "Nothing to prune" in capsys.readouterr().out
    # params.yaml names the bare base alone.
    run_command(study, "prune", "--yes")
    assert "3 to delete" in capsys.readouterr().out
    assert list(kept(study)) == list(answers)[:1]


def test_other_settings_ask_again_and_a_changed_answer_is_refused(study: Layout) -> None:
    config = compose_one(study, *TRIAL, *ASKED)
    evaluate.command([config], study)
    (folder,) = study.examples("nf4").glob("base-*")
    before = read_record(folder, ExamplesRecord)
    drawn = compose_one(study, *TRIAL, *ASKED, "evaluate.example_temperature=0.7")
    assert not collect([drawn], study).examples
    evaluate.command([drawn], study)
    assert read_record(folder, ExamplesRecord).identity != before.identity
    path = folder / EXAMPLES_FILE
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"item": "', b'"item": "0', 1)[:-2] + b"\n")
    with pytest.raises(RecordError, match="evaluate"):
        collect([drawn], study)


def record_of(folder: Path, accuracy: float, loss: float) -> EvaluationRecord:
    record = read_record(folder, EvaluationRecord)
    score = replace(record.splits["validation"], accuracy=accuracy, completion_loss_nats=loss)
    test = replace(record.splits["test"], accuracy=1 - accuracy, completion_loss_nats=-loss)
    return replace(record, splits={"validation": score, "test": test})


def test_leading_are_first_seeds_of_what_validates_best_over_seeds(recorded: Layout) -> None:
    (folder, *_) = (p for p in recorded.evaluations("nf4").iterdir() if (p / RECORD).is_file())

    def scored(
        rank: int, seed: int, accuracy: float, loss: float
    ) -> tuple[Config, EvaluationRecord]:
        adapter = (f"lora.rank={rank}", f"seed={seed}", "model=tiny", "data=biographies")
        return compose_one(recorded, *adapter, "train=tiny"), record_of(folder, accuracy, loss)

    points = [
        scored(2, 0, 0.9, 1.0), scored(2, 1, 0.5, 1.0),
        scored(4, 1, 0.8, 0.5), scored(4, 0, 0.8, 0.5),
        scored(8, 0, 0.8, 0.4),
        scored(16, 0, 1.0, float("nan")),
    ]  # fmt: skip
    found = [(c.adapter.rank, c.seed) for c, _ in leading(points, 3)]  # type: ignore[attr-defined]
    assert found == [(8, 0), (4, 0), (2, 0)]
    assert len(leading(points, 1)) == 1
