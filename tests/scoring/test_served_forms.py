"""Trials as they would be served: merged, stored in a mode, loaded again from disk, and scored."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest

from lorascope.comparing.findings import compare
from lorascope.config import Config
from lorascope.data.calibration import calibration_rows
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError, DeviceError, LorascopeError
from lorascope.execution import sweep
from lorascope.files.layout import Layout
from lorascope.files.revisions import canonical_sha256
from lorascope.files.store import read_record, write_record
from lorascope.planning.served import require_room
from lorascope.quantizers.kinds import quantized_layers
from lorascope.quantizers.loading import load_base
from lorascope.records import EvaluationRecord, FootprintRecord, ServedRecord, TrialRecord
from lorascope.scoring.evaluation import LoadedBase
from lorascope.scoring.served_form import store_served
from lorascope.stages import check, evaluate
from lorascope.study.collect import collect
from lorascope.study.declared import declare_trial, evaluation_identity, scored_inputs
from lorascope.study.grid import expand
from lorascope.study.leftovers import Kind, find_leftovers, needed
from tests.conftest import BASE_OVERRIDES, run_command
from tests.packs import CPU

FORMS = ("apart", "fp16", "int8", "int4_sym", "w8a8_static")
GRID = (*BASE_OVERRIDES, "quant=fp16", "lora.rank=4", "lora.alpha=8", "seed=0,1")


@pytest.fixture(scope="module")
def served(project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Two seeds in fp16, each scored in five forms."""
    layout = Layout(tmp_path_factory.mktemp("served") / "a project")
    shutil.copytree(project.root, layout.root)
    shutil.rmtree(layout.root / "experiments", ignore_errors=True)
    LoadedBase.key = None
    configs = grid(layout)
    sweep.run_sweep(configs, layout)
    evaluate.command(configs, layout)
    LoadedBase.let_go()
    return layout


def grid(layout: Layout, forms: str = ",".join(FORMS)) -> list[Config]:
    return expand(layout, [*GRID, f"serve={forms}"])


def scores(layout: Layout) -> dict[tuple[str, str], EvaluationRecord]:
    """Trial and form -> scores."""
    study = collect(grid(layout), layout)
    return {(e.name.partition("@")[0], e.form): e for e in study.evaluations if e.key}


def test_one_training_has_many_forms_and_each_its_own_scores(served: Layout) -> None:
    found = scores(served)
    trials = {declare_trial(config, served).name for config in grid(served)}
    assert len(trials) == 2
    assert set(found) == {(trial, form) for trial in trials for form in FORMS}
    assert len({record.identity for record in found.values()}) == 10
    folders = {path.name for path in served.evaluations("fp16").iterdir()}
    assert {f"{trial}@int8" for trial in trials} <= folders
    # What was merged and stored is gone.
    assert not list(served.root.glob("experiments/**/*.safetensors.*"))
    assert not list(served.evaluations("fp16").glob("**/*.safetensors"))


def test_fp16_serves_what_the_adapter_says_and_integers_are_further_off(served: Layout) -> None:
    found = scores(served)
    for trial in {name for name, _ in found}:
        loss = {form: found[trial, form].splits["test"].completion_loss_nats for form in FORMS}
        # 11 bits of a merged weight are stored.
        assert abs(loss["fp16"] - loss["apart"]) < 2e-3
        assert abs(loss["int4_sym"] - loss["apart"]) > abs(loss["fp16"] - loss["apart"])


def test_a_form_weighs_what_its_files_hold(served: Layout) -> None:
    """Against shapes: two layers of 64 features, 128 in the MLP, keys of half the width."""
    found = {form: record.served for (_, form), record in scores(served).items()}
    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    base = read_record(served.quantized("small", "fp16"), FootprintRecord).total_bytes
    assert found["apart"] is None
    # Rotary frequencies, twice eight numbers of 32 bits, are made anew and in no file.
    for form, bits in {"fp16": 16, "int4_sym": 4.5}.items():
        assert (own := found[form]) is not None
        assert own.total_bytes == base - 2 * linear + bits * linear / 8
        assert own.total_bytes - own.file_bytes == 2 * 8 * 4
        assert own.bits_per_quantized_parameter == (None if bits == 16 else bits)


def test_what_is_stored_is_the_merged_model_in_that_mode(served: Layout) -> None:
    """Against PEFT's own merge of the full-precision base, read from the file that is scored."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = grid(served, "int8_sym")[0]
    trial = declare_trial(config, served)
    stored, base = served.quantized("small", "fp16"), served.base("small")
    target = served.root / "kept"
    assert config.serve is not None
    train = served.data("small", "toy") / "train.jsonl"
    adapter = trial.folder / "adapter"
    store_served(stored, config.quant, base, adapter, config.serve, CPU, target, train)
    plain = AutoModelForCausalLM.from_pretrained(stored, dtype=torch.float32)
    merged = PeftModel.from_pretrained(plain, trial.folder / "adapter").merge_and_unload()
    loaded = load_base(target, config.serve, CPU)
    for name, layer, quantizer in quantized_layers(loaded):
        exact = merged.get_submodule(name).weight
        step = exact.abs().amax(dim=1, keepdim=True) / 127
        # Half a step, and what 16 bits make of a scale, 127 times.
        off = (quantizer.weight(layer) - exact).abs() / step
        assert 0.4 < float(off.max()) <= 0.5 + 127 / 2048


def test_a_calibrated_form_saw_rows_of_train_alone(served: Layout) -> None:
    forms = {form: record.served for (_, form), record in scores(served).items()}
    static, data = forms["w8a8_static"], served.data("small", "toy")
    rows, tokenizer = read_rows(data / "train.jsonl"), load_tokenizer(served.base("small"))
    assert static is not None
    assert static.calibration is not None
    assert (static.calibration.rows, len(static.calibration.layers)) == (len(rows), 14)
    assert static.calibration.rows_sha256 == calibration_rows(rows, tokenizer, 64).sha256
    assert all(
        form.calibration is None for name, form in forms.items() if form and name != "w8a8_static"
    )


def test_scores_of_adapters_apart_keep_their_identity(served: Layout) -> None:
    """What it was made of before there were forms."""
    config = grid(served, "apart")[0]
    trial = read_record(declare_trial(config, served).folder, TrialRecord)
    assert trial.result is not None
    former = {
        "inputs": scored_inputs(config, served),
        "trial": trial.identity,
        "adapter": trial.result.adapter_sha256,
        "evaluate": {},
        "revisions": {},
    }
    assert evaluation_identity(config, served, trial) == canonical_sha256(former)
    # A form counts by its settings, whatever it is called.
    forms = grid(served, "int4_sym,int8_sym")[:2]
    assert len({evaluation_identity(one, served, trial) for one in forms}) == 2
    assert forms[0].serve is not None
    renamed = replace(forms[0], serve=replace(forms[0].serve, name="other"))
    same = evaluation_identity(renamed, served, trial)
    assert same == evaluation_identity(forms[0], served, trial)


def test_a_second_evaluation_scores_nothing_again(
    served: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.command(grid(served), served)
    assert capsys.readouterr().out.count("scored already") == 11


def test_prune_keeps_declared_forms_and_finds_others(served: Layout) -> None:
    every = find_leftovers(served, needed(grid(served), served))
    assert not [one for one in every.leftovers if one.kind is Kind.scores]
    fewer = find_leftovers(served, needed(grid(served, "apart,fp16"), served))
    # Other tests may have left other things in the project that this one copies.
    left = [one for one in fewer.leftovers if one.kind is Kind.scores]
    names = {one.folder.name.partition("@")[2] for one in left}
    assert names == {"int8", "int4_sym", "w8a8_static"}


@pytest.mark.parametrize("form", ["int5", "Apart", "nf4_dqq", "[fp16,int8]"])
def test_a_form_that_there_is_not_is_refused_with_those_that_there_are(
    project: Layout, form: str
) -> None:
    with pytest.raises(LorascopeError, match=r"one of apart, bf16, .*uint8_asym"):
        expand(project, [*BASE_OVERRIDES, f"serve={form}"])


def test_a_settling_takes_adapters_apart_alone(project: Layout) -> None:
    with pytest.raises(ConfigError, match=r"search='settle'.*known only once it is stored"):
        expand(project, [*BASE_OVERRIDES, "serve=int8", "search=settle"])


def test_what_cannot_be_merged_has_a_row_that_says_so(served: Layout) -> None:
    points = expand(
        served, [*BASE_OVERRIDES, "quant=fp16", "adapter=prompt", "serve=apart,int4_sym"]
    )
    sweep.run_sweep(points, served)
    apart, merged = evaluate.command(points, served)
    assert apart is not None
    assert merged is None
    study = collect(points, served)
    lost = next(score for score in compare(study).cells if score.cell.serve == "int4_sym")
    assert lost.trials[0].status == "not scored"
    assert "adapter=prompt cannot be merged: what stands in front" in str(lost.trials[0].reason)


SHIPPED = ("quant=fp16", "lora.rank=4", "seed=0,1", "runtime.tracking=false")


def test_the_shipped_form_is_stored_and_is_what_was_scored(
    served: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stored again in another folder, it has the bytes and the loss of what was scored."""
    trial = declare_trial(grid(served)[0], served).name
    forms = "serve=apart,int4_sym,int8"
    assert run_command(served, "quantize-merged", *SHIPPED, forms, f"ship={trial}@int4_sym") == 0
    record = read_record(served.served("small"), ServedRecord)
    scored = scores(served)[trial, "int4_sym"]
    assert (record.trial, record.evaluation, record.passed) == (trial, scored.identity, True)
    assert record.as_scored
    assert record.served == scored.served
    assert abs(record.loss_nats - record.scored_loss_nats) < 1e-5
    assert record.validation_score == scored.splits["validation"].accuracy
    assert "byte for byte what was scored" in capsys.readouterr().out
    found = collect(grid(served), served)
    assert found.served == record
    # One that was held against other scores is no longer this study's.
    write_record(served.served("small"), replace(record, evaluation="of former scores"))
    assert collect(grid(served), served).served is None
    with pytest.raises(ConfigError, match="several merged forms"):
        run_command(served, "quantize-merged", *SHIPPED, forms, f"ship={trial}")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("serve=apart", "ship=auto"), "serve: apart: adapters stay apart on their base"),
        (("serve=apart,int8", "ship=auto"), "ships nothing|served apart"),
        (("serve=apart,int8", "ship={trial}@apart"), "served apart, as an adapter on its base"),
    ],
)
def test_where_nothing_is_stored_a_file_says_why(
    served: Layout, asked: tuple[str, ...], told: str
) -> None:
    trial = declare_trial(grid(served)[0], served).name
    run_command(served, "quantize-merged", *SHIPPED, *(one.format(trial=trial) for one in asked))
    folder = served.served("small")
    assert [path.name for path in folder.iterdir()] == ["nothing_served.txt"]
    assert re.search(told, (folder / "nothing_served.txt").read_text())


def test_status_counts_a_trial_once_and_its_scores_by_form(
    served: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    forms = f"serve={','.join(FORMS)}"
    run_command(served, "status", *SHIPPED, forms)
    told = capsys.readouterr().out
    assert re.search(r"fp16 +2 +2 +0 +10 +scored", told)
    assert "lorascope report" in told
    run_command(served, "status", *SHIPPED, "serve=apart,nf4")
    told = capsys.readouterr().out
    assert "lorascope evaluate -m" in told
    assert "serve=apart,nf4" in told


@pytest.mark.parametrize(
    ("limit_gb", "told"),
    [(2e-4, "serve=int4_sym: needs .* to merge a trial and store it"), (1e-3, "needs .* to score")],
)
def test_what_memory_cannot_hold_is_refused_before_it_is_merged(
    served: Layout, limit_gb: float, told: str
) -> None:
    config = grid(served, "int4_sym")[0]
    config.runtime.memory_limit_gb = limit_gb
    with pytest.raises(DeviceError, match=told):
        require_room(config, served)


def test_check_judges_the_mode_that_is_served_too(project: Layout) -> None:
    """A CPU cannot train in float16, so that the form could not be loaded."""
    (project.conf / "quant/narrow.yaml").write_text(
        "name: narrow\nstorage: int4_sym\ncompute: float16\n"
    )
    try:
        (point,) = expand(project, [*BASE_OVERRIDES, "quant=nf4", "serve=narrow"])
        with pytest.raises(DeviceError, match=r"quant\.compute='float16'"):
            check.command([point], project)
    finally:
        (project.conf / "quant/narrow.yaml").unlink()
