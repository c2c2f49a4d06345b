"""Datasets with their use, and adapters as logged and registered models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.comparing.findings import compare
from lorascope.files.layout import ADAPTER_FILES, Layout
from lorascope.files.store import write_record
from lorascope.records import Status
from lorascope.reporting.tracked_study import study_content
from lorascope.tracking import TrackingError, models, publish, store_uri
from tests.study_factory import Trial, data_card, make_study
from tests.tracking.test_tracking import evaluation, runs, trial

WEIGHTS = b"weights" * 100


def client(layout: Layout):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store_uri(layout), registry_uri=store_uri(layout))


def write_adapter(layout: Layout, quant: str, name: str) -> Path:
    folder = layout.trials(quant) / name / "adapter"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ADAPTER_FILES:
        (folder / file).write_bytes(WEIGHTS)
    (folder / "training_state.pt").write_bytes(b"not for others")
    return folder


def test_splits_are_inputs_with_digest_place_and_use(shared: Layout) -> None:
    from mlflow.data import get_source

    card = replace(data_card(), model="d1")
    write_record(shared.data("d1", card.name), card)
    file = shared.data("d1", card.name) / "train.jsonl"
    file.write_text("{}\n")
    record = trial("d1")
    record = replace(record, settings={**record.settings, "data": card.content_sha256})
    publish([record], [], shared)
    inputs = runs(shared, "d1")[1][record.trial].inputs.dataset_inputs
    found = {one.tags[0].value: one.dataset for one in inputs}
    assert set(found) == {"training", "validation", "test"}
    assert found["training"].digest == card.splits["train"].sha256[:36]
    assert json.loads(found["test"].profile)["num_rows"] == card.splits["test"].rows
    assert Path(get_source(found["training"]).load()).read_text() == "{}\n"


def test_an_adapter_is_a_logged_model_with_its_own_files_and_scores(shared: Layout) -> None:
    record, other = trial("d2"), trial("d2", rank=4, status=Status.failed)
    for one in (record, other):
        write_adapter(shared, "nf4", one.trial)
    publish([record, other], [evaluation(record)], shared)
    found = runs(shared, "d2")[1]
    (output,) = found[record.trial].outputs.model_outputs
    assert not found[other.trial].outputs.model_outputs
    model = client(shared).get_logged_model(output.model_id)
    assert (model.name, str(model.status), model.params["rank"]) == (
        record.trial, "READY", "8",
    )  # fmt: skip
    assert {m.key: m.value for m in model.metrics}["test_accuracy"] == 0.75
    listed = {file.path for file in client(shared).list_logged_model_artifacts(output.model_id)}
    assert listed == {*ADAPTER_FILES, "MLmodel"}
    publish([record], [evaluation(record)], shared)
    assert len(runs(shared, "d2")[1][record.trial].outputs.model_outputs) == 1


def test_weights_of_a_large_adapter_are_not_kept_twice(
    shared: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MAX_ADAPTER_BYTES", len(WEIGHTS))
    record = trial("d3")
    write_adapter(shared, "nf4", record.trial)
    publish([record], [], shared)
    (output,) = runs(shared, "d3")[1][record.trial].outputs.model_outputs
    listed = {file.path for file in client(shared).list_logged_model_artifacts(output.model_id)}
    assert listed == {"adapter_config.json", "MLmodel"}


def test_what_is_shipped_becomes_one_version_of_a_registered_model(shared: Layout) -> None:
    shipped = Trial("nf4", rank=32)
    study = make_study([shipped, Trial("fp16", rank=32)], merged=shipped)
    content = replace(study_content(study, compare(study)), bases=())
    assert study.merge is not None

    def register() -> str | None:
        return publish(study.trials, [], shared, study=content, register="ours").registered

    with pytest.raises(TrackingError, match="Run `lorascope train-lora`"):
        register()
    write_adapter(shared, "nf4", study.merge.trial)
    assert register() == "ours version 1"
    assert register() == "ours version 1"
    version = client(shared).get_model_version_by_alias("ours", "shipped")
    assert version.tags["lorascope.trial"] == study.merge.trial
