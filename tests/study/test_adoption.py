"""Trials and scores of a former identity: they pass for the present ones where that is known."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.comparing.cells import variants
from lorascope.comparing.findings import compare
from lorascope.comparing.results import Pairing
from lorascope.config import Config
from lorascope.errors import LorascopeError, RecordError
from lorascope.execution.sweep import run_sweep
from lorascope.files.layout import ADAPTER_FILES, RECORD, Layout
from lorascope.files.revisions import (
    FORMER_SCORING_CODE,
    FORMER_TRAINING_CODE,
    RAISED,
    canonical_sha256,
)
from lorascope.files.store import read_record, sha256_of_files, write_record
from lorascope.records import EvaluationRecord, TrialRecord
from lorascope.stages import adopt, evaluate, prune
from lorascope.study.adoption import foreseen, predecessors, take_over
from lorascope.study.collect import collect
from lorascope.study.declared import base_name, declare_trial, read_trial, scored_inputs
from lorascope.study.grid import expand
from lorascope.study.params import declared_overrides

CODE, COMMIT = next(iter(FORMER_TRAINING_CODE.items()))
EVALUATE = {"batch_size": 64, "max_new_tokens": 16, "lm_eval_tasks": []}


def age(layout: Layout, code: str = CODE, scoring: str = COMMIT) -> dict[str, Path]:
    """Give all trials and scores the identities that they had at that code; present name -> former
    folder."""
    former = {}
    for config in expand(layout, declared_overrides(layout)):
        scores = layout.evaluations(config.quant.name)
        told = {
            "inputs": scored_inputs(config, layout), "evaluate": EVALUATE,
            "code": list(FORMER_SCORING_CODE[scoring]),
        }  # fmt: skip
        base = scores / base_name(config, layout)
        _rename(base, base, canonical_sha256({**told, "trial": None}), None)
        folder = declare_trial(config, layout).folder
        record = read_record(folder, TrialRecord)
        settings = {k: v for k, v in record.settings.items() if k != "revisions"} | {"code": code}
        identity = canonical_sha256(settings)
        name = f"{folder.name.rpartition('-')[0]}-{identity[:10]}"
        for file in ADAPTER_FILES:
            (folder / "adapter").mkdir(exist_ok=True)
            (folder / "adapter" / file).write_text(f"{file} of {name}")
        assert record.result is not None
        result = replace(
            record.result, adapter_sha256=sha256_of_files(folder / "adapter", ADAPTER_FILES)
        )
        write_record(
            folder,
            replace(record, trial=name, identity=identity, settings=settings, result=result),
        )
        former[folder.name] = folder.rename(folder.with_name(name))
        scored = canonical_sha256({**told, "trial": identity})
        _rename(scores / folder.name, scores / name, scored, identity)
    return former


def _rename(folder: Path, target: Path, identity: str, trial: str | None) -> None:
    record = read_record(folder, EvaluationRecord)
    write_record(folder, replace(record, name=target.name, identity=identity, trial_identity=trial))
    folder.rename(target)


def test_the_former_identity_is_that_of_a_study_that_was_trained_then() -> None:
    """nf4_dq-r0064-a0032-s0-c1e833a9d7, of the default study as trained at e819478."""
    settings = {
        "base": "461d23e5ab459135bc0098b40e982db98301aaf942092b0184299194c6b9e652",
        "data": "441c64c030481ab13694ec04ea104244b53cb0c838633c6a5856ee1ec977fc98",
        "attention": "auto", "train_on_prompt": False, "seed": 0, "code": CODE,
        "quant": {"storage": "nf4", "double_quantization": True, "compute": "auto",
                  "int8_outlier_threshold": 6.0},
        "lora": {"targets": "all_linear", "modules": [], "rank": 64, "alpha": 32.0, "dropout": 0.0,
                 "rslora": False, "dora": False},
        "train": {"epochs": None, "steps": 200, "batch_size": 64, "micro_batch_size": 64,
                  "learning_rate": 0.003, "schedule": "linear", "warmup_fraction": 0.05,
                  "weight_decay": 0.0, "max_gradient_norm": 1.0, "gradient_checkpointing": False,
                  "validate_every_steps": 0, "patience": 0},
    }  # fmt: skip
    assert canonical_sha256(settings)[:10] == "c1e833a9d7"


def grid(layout: Layout) -> list[Config]:
    return expand(layout, declared_overrides(layout))


def adopt_all(layout: Layout, *flags: str) -> None:
    adopt.command(grid(layout), layout, dict.fromkeys(flags, ""), [])


def lines(layout: Layout) -> list[str]:
    return foreseen(predecessors(declare_trial(config, layout) for config in grid(layout)))


def test_trials_and_scores_of_known_code_are_taken_over_instead_of_made_again(
    recorded: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    former = age(recorded)
    bytes_of = {name: (f / "adapter" / ADAPTER_FILES[0]).read_bytes() for name, f in former.items()}
    configs = grid(recorded)
    records = run_sweep(configs, recorded)
    assert "Taken over, not trained again: 4 trials of another identity" in capsys.readouterr().err
    assert [record.trial for record in records] == list(former)
    for record in records:
        folder = recorded.trials(record.key.quant) / record.trial
        assert (folder / "adapter" / ADAPTER_FILES[0]).read_bytes() == bytes_of[record.trial]
        assert record.taken_over is not None
        assert record.taken_over.trial == former[record.trial].name
        assert record.taken_over.trained_by == f"code {CODE[:10]} (lorascope at {COMMIT})"
        assert not record.taken_over.assumed
    scores = evaluate.command(configs, recorded)
    assert [one.name for one in scores if one] == list(former)
    assert not any(folder.exists() for folder in former.values())
    study = collect(configs, recorded)
    # Four trials, and the bare base of each of two modes.
    assert (len(study.trials), len(study.evaluations)) == (4, 6)
    assert lines(recorded) == []


def test_a_setting_that_a_record_is_older_than_has_its_default(recorded: Layout) -> None:
    """Else it would set trials from before and after an upgrade apart in every table."""
    configs = grid(recorded)
    declared = declare_trial(configs[0], recorded)
    folder = recorded.trials(configs[0].quant.name) / declared.name
    record = read_record(folder, TrialRecord)
    train: Any = record.settings["train"]
    train = {name: value for name, value in train.items() if name != "objective"}
    write_record(folder, replace(record, settings={**record.settings, "train": train}))
    study = collect(configs, recorded)
    assert {trial.objective for trial in study.trials} == {"completion"}
    assert set(variants(study).values()) == {""}
    assert compare(study).threats == compare(collect(configs[1:], recorded)).threats


def test_trials_of_unknown_code_are_taken_over_on_somebodys_word_alone(
    recorded: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    former = age(recorded, code="5" * 64)
    (told,) = lines(recorded)
    assert told.startswith(
        "To be trained again: 4 trials, as code 5555555555 trained what is there."
    )
    assert f"at {' and '.join(FORMER_TRAINING_CODE.values())}." in told
    with pytest.raises(LorascopeError, match="adopt leaves:\n  To be trained again: 4 trials"):
        adopt_all(recorded, "--yes")
    adopt_all(recorded, "--assume-equal")
    assert "Nothing was changed" in capsys.readouterr().out
    assert all(folder.exists() for folder in former.values())
    adopt_all(recorded, "--assume-equal", "--yes")
    study = collect(grid(recorded), recorded)
    assert [trial.taken_over.assumed for trial in study.trials if trial.taken_over] == [True] * 4
    assert any("trained by code 5555555555" in threat for threat in compare(study).threats)
    trained_here = [
        replace(trial, taken_over=None) if trial.key.quant == "fp16" else trial
        for trial in study.trials
    ]
    (between, *_) = (
        comparison
        for comparison in compare(replace(study, trials=trained_here)).comparisons
        if comparison.pairing is Pairing.mode
    )
    assert "trained by other code (code 5555555555 / revision 1)" in between.confounds


@pytest.mark.parametrize("renames", [0, 5])
def test_a_kill_while_taking_over_leaves_all_readable_and_the_next_call_goes_on(
    recorded: Layout, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(recorded)
    left = iter(range(renames))
    rename = os.rename

    def killed(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            adopt_all(recorded, "--yes")
    folders = [folder for quant in ("fp16", "nf4") for folder in recorded.trials(quant).iterdir()]
    assert len({read_record(folder, TrialRecord).identity for folder in folders}) == 4
    adopt_all(recorded, "--yes")
    study = collect(grid(recorded), recorded)
    assert (len(study.trials), len(study.evaluations)) == (4, 6)


def test_a_damaged_adapter_is_not_taken_over(recorded: Layout) -> None:
    name, folder = next(iter(age(recorded).items()))
    file = folder / "adapter" / ADAPTER_FILES[0]
    file.write_text(file.read_text()[::-1])
    configs = grid(recorded)
    found = predecessors(declare_trial(config, recorded) for config in configs)
    (damaged,) = (one for one in found if one.declared.name == name)
    with pytest.raises(RecordError):
        take_over(damaged, recorded)
    assert folder.exists()


def test_a_former_trial_that_cannot_be_read_is_told_with_a_remedy(
    recorded: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = next(iter(age(recorded).values()))
    (folder / RECORD).write_text("{")
    assert len(predecessors(declare_trial(config, recorded) for config in grid(recorded))) == 3
    told = capsys.readouterr().err
    assert f"not taken over: {folder / RECORD}: not a readable TrialRecord" in told
    assert f"Delete {folder} and run `lorascope train-lora` again." in told


def test_it_is_said_before_training_why_trials_are_trained_again(
    recorded: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines(recorded) == []
    with monkeypatch.context() as patched:
        patched.setitem(RAISED, "training", ("warm-up began a step late",))
        (told,) = lines(recorded)
        assert told.startswith(
            "To be trained again: 4 trials, as the training revision is 2, and was 1: warm-up "
            "began a step late."
        )
    configs = expand(recorded, [*declared_overrides(recorded), "train.steps=7"])
    (told,) = foreseen(predecessors(declare_trial(config, recorded) for config in configs))
    assert told.startswith("To be trained beside those that are there: 4 trials (train.steps=")
    assert told.endswith("and 7 is declared).")


def test_a_default_that_was_another_one_does_not_pass_for_the_present_one(
    recorded: Layout,
) -> None:
    """Both trials have one identity, as neither differs from the default of its time."""
    declared = declare_trial(grid(recorded)[0], recorded)
    folder = declared.folder
    record = read_record(folder, TrialRecord)
    train: Any = record.settings["train"]
    former = {**record.settings, "train": {**train, "weight_decay": 0.1}}
    write_record(folder, replace(record, settings=former))
    with pytest.raises(RecordError, match=r"train.weight_decay=0.1, and 0.0 is declared"):
        read_trial(declared, folder)


def test_prune_leaves_what_can_be_taken_over(recorded: Layout) -> None:
    former = age(recorded, code="5" * 64)
    prune.command(grid(recorded), recorded, {"--yes": ""}, [])
    assert all(folder.exists() for folder in former.values())


def test_a_trial_whose_adapter_reached_other_layers_passes_for_none(recorded: Layout) -> None:
    """As former code adapted a mixture of experts, or the tower of a model that sees."""
    former = next(iter(age(recorded).values()))
    record = read_record(former, TrialRecord)
    assert record.result is not None
    more = record.result.trainable_parameters + 8
    write_record(former, replace(record, result=replace(record.result, trainable_parameters=more)))
    found = predecessors(declare_trial(config, recorded) for config in grid(recorded))
    assert [one.folder for one in found if not one.passes] == [former]
    assert f"({more:,} trainable parameters, and {more - 8:,} now)" in foreseen(found)[-1]
