"""The runs of a study and of bare bases: what MLflow shows of an answer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.comparing.findings import compare
from lorascope.files.layout import FORGETTING, Layout
from lorascope.records import Study
from lorascope.reporting.tracked_study import study_content
from lorascope.tracking import publish, store_uri
from lorascope.tracking.points import is_score_name
from tests.study_factory import Trial, make_study


@pytest.fixture(scope="module")
def study() -> Study:
    modes, seeds = ("fp16", "nf4"), (0, 1)
    return make_study([Trial(mode, seed=seed, accuracy=0.9) for mode in modes for seed in seeds])


def by_name(layout: Layout):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store_uri(layout))
    experiment = client.get_experiment_by_name("tiny/biographies")
    return client, {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}


def test_the_answer_stands_above_sweeps_and_bases_with_its_numbers_and_figures(
    shared: Layout, study: Study
) -> None:
    findings = compare(study)
    content = study_content(study, findings)
    done = publish(study.trials, study.evaluations, shared, study=content)
    assert (done.bases_added, done.study_changed, done.evaluations_without_trial) == (2, True, 0)
    client, runs = by_name(shared)
    top = runs[content.name]
    assert findings.decision.recommended is not None
    score = findings.score(findings.decision.recommended)
    assert score.accuracy is not None
    assert top.data.metrics["test_accuracy"] == score.accuracy.value
    assert top.data.metrics["test_accuracy_low"] == score.accuracy.low
    assert findings.decision.test is not None
    assert (
        top.data.metrics["difference_to_reference_accuracy"]
        == findings.decision.test.difference.value
    )
    assert top.data.tags["recommended_trial"] == findings.decision.trial
    base = runs["nf4-bare-base"]
    assert base.data.metrics["test_accuracy"] == 0.4
    (stored,) = (f.total_bytes for f in study.footprints if f.quant == "nf4")
    assert (base.data.metrics["stored_bytes"], base.data.params["quant"]) == (stored, "nf4")
    below = [r for r in runs.values() if r.data.tags.get("mlflow.parentRunId") == top.info.run_id]
    assert len(below) == 4
    figures = {file.path for file in client.list_artifacts(top.info.run_id, "figures")}
    assert "figures/accuracy_by_memory.svg" in figures
    again = publish(study.trials, study.evaluations, shared, study=content)
    assert (again.bases_added, again.study_changed) == (0, False)


def test_an_answer_that_is_withdrawn_leaves_no_number_behind(shared: Layout, study: Study) -> None:
    whole = study_content(study, compare(study))
    few = replace(
        whole, name="study: nothing ships yet", metrics={"settled": 0.0}, trials=frozenset(),
        bases=whole.bases[:1],
    )  # fmt: skip
    publish(study.trials, study.evaluations, shared, study=whole)
    assert publish(study.trials, study.evaluations, shared, study=few).study_changed
    runs = by_name(shared)[1]
    left, top = runs[few.name].data.metrics, runs[few.name].info.run_id
    assert left["settled"] == 0.0
    assert math.isnan(left["test_accuracy"])
    below = [name for name, r in runs.items() if r.data.tags.get("mlflow.parentRunId") == top]
    assert below == [f"{whole.bases[0].scores.quant}-bare-base"]
    assert not publish(study.trials, study.evaluations, shared, study=few).study_changed


def test_what_is_forgotten_of_another_dataset_shows_no_former_number(
    shared: Layout, study: Study
) -> None:
    (trial, *_) = study.trials
    (scores,) = (e for e in study.evaluations if e.trial_identity == trial.identity)
    splits = {**scores.splits, FORGETTING: scores.splits["test"]}
    newer = replace(scores.provenance, created_utc="2030-01-01T00:00:00+00:00")
    publish([trial], [replace(scores, splits=splits, forgetting="wiki")], shared)
    other = replace(scores, splits=splits, forgetting="code", identity="n", provenance=newer)
    publish([trial], [other], shared)
    metrics = by_name(shared)[1][trial.trial].data.metrics
    assert metrics["forgetting/code_completion_loss_nats"] > 0
    assert math.isnan(metrics["forgetting/wiki_completion_loss_nats"])
    assert metrics["validation_loss_nats"] > 0
    assert publish([trial], [other], shared).evaluations_added == 0


@pytest.mark.parametrize(
    ("name", "form", "is_score"),
    [
        ("test_accuracy", "", True),
        ("forgetting/wiki_completion_loss_nats", "", True),
        ("forgetting_accuracy", "", True),
        ("lm_eval/arc/acc", "", True),
        ("int4_sym/test_accuracy", "int4_sym", True),
        ("int4_sym/test_accuracy", "", False),
        ("test_accuracy", "int4_sym", False),
        ("validation_loss_nats", "", False),
        ("train_loss_nats", "", False),
    ],
)
def test_scores_are_told_from_what_training_measured(name: str, form: str, is_score: bool) -> None:
    assert is_score_name(name, form) is is_score


def test_pages_open_in_the_view_of_trainings(shared: Layout, study: Study, tmp_path: Path) -> None:
    from lorascope.tracking import page_addresses

    publish(study.trials, study.evaluations, shared)
    addresses = dict(page_addresses(shared, "http://127.0.0.1:5000"))
    address = addresses[f"{study.base.model}/{study.data.name}"]
    assert "workflowType=machine_learning" in address
    assert "orderByKey=metrics.%60test_accuracy%60" in address
    assert page_addresses(Layout(tmp_path), "http://127.0.0.1:5000") == []
