"""Results that are lost, edited or exchanged after they were made: nothing goes on with them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorascope.errors import LorascopeError, RecordError
from lorascope.execution import sweep
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import DIGEST, read_record, write_record
from lorascope.records import EvaluationRecord, TrialRecord
from lorascope.stages import evaluate, merge, publish, quantize_base, report
from lorascope.study.declared import declare_trial, evaluation_identity
from lorascope.study.grid import expand
from lorascope.study.status import sweep_status
from tests.conftest import BASE_OVERRIDES, TRIAL, compose_one

ADAPTER = "experiments/train/nf4/nf4-*/adapter/adapter_model.safetensors"
SCORES = "experiments/evaluate/nf4/nf4-*"


def status_of(layout: Layout) -> list[str]:
    """What `status` finds wrong."""
    overrides = [*BASE_OVERRIDES, *TRIAL]
    found = sweep_status(expand(layout, overrides), layout, overrides, overrides)
    unprepared = [missing.problem for missing in found.unprepared]
    return [*unprepared, *(problem for mode in found.modes for problem in mode.damaged)]


def refuse_status(layout: Layout) -> None:
    """`status` shows all there is: here its findings are raised."""
    if found := status_of(layout):
        raise RecordError("; ".join(found))


def refuse_publish(layout: Layout) -> None:
    """`publish` skips what is wrong."""
    _, damaged = publish._read_all(layout.evaluations("nf4").parent, publish._read_scores)
    if damaged:
        raise RecordError("; ".join(damaged))


READERS: dict[str, Callable[[Layout], object]] = {
    "status": refuse_status,
    "quantize-base": lambda layout: quantize_base.command([compose_one(layout, *TRIAL)], layout),
    "train-lora": lambda layout: sweep.run(compose_one(layout, *TRIAL), layout),
    "evaluate": lambda layout: evaluate.command([compose_one(layout, *TRIAL)], layout)[0],
    "merge": lambda layout: merge.command([compose_one(layout, *TRIAL)], layout),
    "report": lambda layout: report.command([compose_one(layout, *TRIAL)], layout),
    "publish": refuse_publish,
}


def refused_by(readers: list[str], layout: Layout, *parts: str) -> None:
    """Each names the file, or its folder, and what to do."""
    for name in readers:
        with pytest.raises(LorascopeError) as caught:
            READERS[name](layout)
        told = str(caught.value)
        assert all(part in told for part in parts), f"{name}: {told}"
        assert "again" in told, f"{name}: {told}"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


LOST = [
    (ADAPTER, ["status", "train-lora", "evaluate", "merge", "report"]),
    (ADAPTER.replace("model.safetensors", "config.json"), ["status", "train-lora", "evaluate"]),
    (f"{SCORES}/test.jsonl", ["status", "evaluate", "merge", "report", "publish"]),
    (f"{SCORES}/test_distributions.npy", ["status", "evaluate", "merge", "report", "publish"]),
    ("experiments/evaluate/nf4/base-*/validation.jsonl", ["status", "evaluate", "report"]),
    ("models/small/base/model.safetensors", ["status", "quantize-base", "train-lora", "report"]),
    ("models/small/nf4/tokenizer.json", ["status", "train-lora", "evaluate", "report"]),
    ("models/small/merged/model.safetensors", ["report"]),
    ("data/toy/small/test.jsonl", ["status", "train-lora", "evaluate", "report"]),
]


@pytest.mark.parametrize(("pattern", "readers"), LOST)
def test_a_lost_file_is_noticed_by_all_that_read_its_record(
    study: Layout, pattern: str, readers: list[str]
) -> None:
    (path,) = study.root.glob(pattern)
    path.unlink()
    refused_by(readers, study, f"{path}: missing, though its record names it")


FLIPPED = [
    (ADAPTER, ["train-lora", "evaluate", "merge"]),
    (f"{SCORES}/test.jsonl", ["evaluate", "merge", "report", "publish"]),
    (f"{SCORES}/test_distributions.npy", ["evaluate", "merge", "report"]),
    ("experiments/evaluate/nf4/base-*/test.jsonl", ["evaluate", "merge", "report"]),
]


@pytest.mark.parametrize(("pattern", "readers"), FLIPPED)
def test_a_flipped_bit_is_noticed_where_the_result_is_used_and_status_reads_no_weights(
    study: Layout, pattern: str, readers: list[str]
) -> None:
    (path,) = study.root.glob(pattern)
    flip_a_bit(path)
    refused_by(readers, study, str(path.parent), "damaged or exchanged")
    assert status_of(study) == []


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) >= 1, text
    path.write_text(text.replace(old, new, 1))


EDITED = [
    (f"{SCORES}/{RECORD}", "accuracy", ["status", "evaluate", "merge", "report", "publish"]),
    ("experiments/train/nf4/nf4-*/record.json", "loss_nats", ["status", "train-lora", "report"]),
    ("models/small/nf4/record.json", "total_bytes", ["status", "train-lora", "report"]),
    ("models/small/base/record.json", "parameters", ["status", "train-lora", "report"]),
    ("data/toy/small/record.json", "rows_read", ["status", "train-lora", "report"]),
    ("models/small/merged/record.json", "merged_loss_nats", ["report"]),
]


@pytest.mark.parametrize(("pattern", "key", "readers"), EDITED)
def test_a_number_that_was_edited_in_a_record_enters_nothing(
    study: Layout, pattern: str, key: str, readers: list[str]
) -> None:
    (path,) = study.root.glob(pattern)
    edit(path, f'"{key}": ', f'"{key}": 9')
    refused_by(readers, study, f"{path}: edited since it was written")


def test_scores_are_those_of_their_items_whatever_the_record_says_of_itself(study: Layout) -> None:
    """As another program writes them, which knows the digest."""
    (folder,) = study.root.glob(SCORES)
    record = read_record(folder, EvaluationRecord)
    changes: list[tuple[str, Any]] = [
        ("accuracy", 0.99),
        ("completion_loss_nats", 0.1),
        ("items", 20),
    ]
    for name, value in changes:
        test = dataclasses.replace(record.splits["test"], **{name: value})
        write_record(folder, dataclasses.replace(record, splits={**record.splits, "test": test}))
        readers = ["evaluate", "merge", "report", "publish"]
        refused_by(readers, study, f"{folder}: test {name}={value} in its record, and its items")


def test_another_layout_of_a_record_and_one_from_before_digests_are_read(study: Layout) -> None:
    (folder,) = study.trials("nf4").iterdir()
    trial = read_record(folder, TrialRecord)
    content = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(content, sort_keys=True))
    assert read_record(folder, TrialRecord) == trial
    del content[DIGEST], content["files_bytes"]
    (folder / RECORD).write_text(json.dumps(content))
    assert read_record(folder, TrialRecord) == trial


def test_a_trial_in_the_place_of_another_is_refused(study: Layout) -> None:
    other = compose_one(study, *TRIAL, "seed=8")
    (folder,) = study.trials("nf4").iterdir()
    place = study.trials("nf4") / declare_trial(other, study).name
    shutil.copytree(folder, place)
    for run in (sweep.run_sweep, evaluate.command, report.command):
        with pytest.raises(RecordError, match=rf"{place.name}: holds {folder.name}.*again"):
            run([other], study)


def test_scores_of_an_adapter_that_was_trained_anew_are_out_of_date(study: Layout) -> None:
    """The same settings give other bits on another machine."""
    config = compose_one(study, *TRIAL)
    (folder,) = study.trials("nf4").iterdir()
    trial = read_record(folder, TrialRecord)
    assert trial.result is not None
    again = dataclasses.replace(trial.result, adapter_sha256="0" * 64)
    scored = evaluation_identity(config, study, trial)
    (scores,) = study.root.glob(SCORES)
    assert read_record(scores, EvaluationRecord).identity == scored
    assert evaluation_identity(config, study, dataclasses.replace(trial, result=again)) != scored


def test_damaged_trials_of_a_sweep_are_named_together(study: Layout) -> None:
    configs = [compose_one(study, *TRIAL, f"seed={seed}") for seed in (7, 8)]
    sweep.run_sweep(configs, study)
    lost = [study.trials("nf4") / declare_trial(one, study).name / "adapter" for one in configs]
    for adapter in lost:
        shutil.rmtree(adapter)
    with pytest.raises(RecordError) as caught:
        sweep.run_sweep(configs, study)
    assert all(f"{adapter}/adapter_config.json: missing" in str(caught.value) for adapter in lost)
