"""Merging: equal to adapter on base in every mode, tied heads apart, checked before it counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lorascope.adapters.attach import load_adapter
from lorascope.comparing.shipping import choose
from lorascope.config import Config, QuantConfig, Storage
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import IGNORED_LABEL, load_tokenizer
from lorascope.errors import ConfigError, ModelError, RecordError, VerificationError
from lorascope.execution import sweep
from lorascope.files.layout import Layout
from lorascope.files.store import read_record
from lorascope.objectives.completion import Completion, last_completion
from lorascope.quantizers.kinds import quantized_layers
from lorascope.quantizers.loading import load_base, load_stored
from lorascope.records import MergeRecord, Status, TrialRecord
from lorascope.scoring.merge_check import MergeCheck, MergedPredictions
from lorascope.scoring.merged_folder import write_merged
from lorascope.scoring.merging import merge
from lorascope.stages import evaluate
from lorascope.stages import merge as merge_stage
from lorascope.study.collect import collect
from tests.devices import DEVICE, in_float32
from tests.study_factory import Trial, make_study


@pytest.fixture(scope="module")
def trained(project: Layout, compose: Callable[..., Config]) -> dict[str, TrialRecord]:
    """One trial a mode that has really moved the base."""
    settings = ("lora.rank=8", "train.steps=30", "seed=21")
    modes = ("fp16", "int8", "nf4", "nf4_dq")
    return {mode: sweep.run(compose(f"quant={mode}", *settings), project) for mode in modes}


@pytest.mark.gpu
@pytest.mark.parametrize(("mode", "largest"), [("fp16", 1e-4), ("nf4", 1e-4), ("nf4_dq", 1e-4)])
def test_merged_weights_give_the_logits_of_adapter_on_base(
    project: Layout,
    compose: Callable[..., Config],
    trained: dict[str, TrialRecord],
    mode: str,
    largest: float,
    tmp_path: Path,
) -> None:
    check, untied = _merge_and_check(project, compose(f"quant={mode}"), trained[mode], tmp_path)
    assert check.largest_logit_difference < largest
    assert check.prediction_agreement == 1
    assert check.merged_loss_nats == pytest.approx(check.adapter_loss_nats, abs=1e-5)
    assert not untied


def test_constants_that_are_buffers_are_no_weights_of_the_plain_model(
    project: Layout, trained: dict[str, TrialRecord]
) -> None:
    adapter = project.trials("nf4") / trained["nf4"].trial / "adapter"
    model = load_stored(project.quantized("small", "nf4"), QuantConfig("nf4", Storage.nf4))
    for _, layer, _ in quantized_layers(model):
        layer.register_buffer("scales", layer.weight.quant_state.absmax)
    merge(model, adapter, torch.float32)
    model.register_buffer("extra", torch.zeros(1))
    with pytest.raises(ModelError, match="'unexpected_keys': \\['extra'\\]"):
        merge(model, adapter, torch.float32)


@pytest.mark.gpu
def test_int8_merges_within_its_activation_rounding(
    project: Layout, compose: Callable[..., Config], trained: dict[str, TrialRecord], tmp_path: Path
) -> None:
    """LLM.int8 rounds activations too, which a plain merged model does not do."""
    check, _ = _merge_and_check(project, compose("quant=int8"), trained["int8"], tmp_path)
    assert check.prediction_agreement > 0.95
    assert abs(check.merged_loss_nats - check.adapter_loss_nats) < 0.02


def _merge_and_check(
    project: Layout, config: Config, trial: TrialRecord, folder: Path
) -> tuple[MergeCheck, bool]:
    stored = project.quantized("small", config.quant.name)
    adapter = project.trials(config.quant.name) / trial.trial / "adapter"
    untied, merged = _merged(project, config, adapter, folder)
    rows = read_rows(project.data("small", "toy") / "test.jsonl")
    adapted = load_adapter(load_base(stored, in_float32(config.quant), DEVICE), adapter)
    merged.to(DEVICE.kind)
    said = MergedPredictions(merged, rows, load_tokenizer(stored), 8, folder, Completion())
    return said.check(adapted), untied


def _merged(
    project: Layout, config: Config, adapter: Path, folder: Path
) -> tuple[bool, PreTrainedModel]:
    """Whether the head is untied, and the model as transformers loads it from `folder`."""
    stored = load_stored(project.quantized("small", config.quant.name), config.quant)
    merge_ = merge(stored, adapter, torch.float32)
    write_merged(merge_, project.base("small"), 2, folder)
    return merge_.untied, AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.gpu
def test_an_adapter_on_a_tied_head_leaves_the_embedding_alone(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    config = compose("quant=nf4")
    stored = project.quantized("small", "nf4")
    base = load_base(stored, in_float32(config.quant), DEVICE)
    embedding = base.get_input_embeddings().weight.detach().cpu().clone()
    torch.manual_seed(0)
    adapted = get_peft_model(
        base, LoraConfig(r=4, target_modules=["lm_head", "q_proj"], init_lora_weights=False)
    )
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        expected = adapted.eval()(input_ids=ids.to(DEVICE.kind)).logits.cpu()
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    (tmp_path / "merged").mkdir()
    untied, plain = _merged(project, config, tmp_path / "adapter", tmp_path / "merged")
    assert untied
    assert torch.equal(plain.get_input_embeddings().weight, embedding)
    assert not torch.equal(plain.get_output_embeddings().weight, embedding)
    with torch.no_grad():
        assert torch.allclose(plain(input_ids=ids).logits, expected, atol=1e-4)


@pytest.mark.gpu
def test_the_stage_merges_what_ship_names_and_its_model_loads_in_plain_transformers(
    project: Layout, compose: Callable[..., Config]
) -> None:
    configs = [
        compose("quant=nf4", f"lora.rank={rank}", "train.steps=30", "ship=nf4-r0008")
        for rank in (1, 8)
    ]
    for config in configs:
        sweep.run(config, project)
        evaluate.command([config], project)
    record = merge_stage.command(configs, project)
    assert record is not None
    assert record.trial.startswith("nf4-r0008")
    study = collect(configs, project)
    assert record.passed
    assert study.merge == record
    folder = project.merged("small")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert not hasattr(plain.config, "quantization_config")
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<eos>"
    assert read_record(folder, MergeRecord) == record


@pytest.mark.gpu
def test_int8_is_shipped_with_both_comparisons_in_its_record(
    project: Layout, compose: Callable[..., Config], trained: dict[str, TrialRecord]
) -> None:
    settings = ("quant=int8", "lora.rank=8", "train.steps=30", "seed=21")
    config = compose(*settings, f"ship={trained['int8'].trial}", "merge.max_logit_difference=1e-3")
    record = merge_stage.command([config], project)
    assert record is not None
    assert record.largest_logit_difference > 1e-3
    assert record.unrounded_logit_difference == pytest.approx(0, abs=1e-4)
    assert record.unrounded_agreement == 1
    assert record.stop_token_ids == [2]
    assert record.foreign_names == []


@pytest.mark.gpu
def test_a_base_that_computes_in_16_bits_is_compared_in_float32_and_the_gap_is_told_apart(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """Products of 8 significant bits move logits by more than the limit here; merging does not."""
    settings = ("quant=nf4", "quant.compute=bfloat16", "lora.rank=8", "train.steps=30", "seed=21")
    trial = sweep.run(compose(*settings), project).trial
    config = compose(*settings, f"ship={trial}", "merge.max_logit_difference=1e-3")
    record = merge_stage.command([config], project)
    assert record is not None
    assert record.passed
    assert record.largest_logit_difference < 1e-4
    assert record.prediction_agreement == 1
    assert record.unrounded_agreement is None
    gap = record.arithmetic_gap
    assert gap is not None
    assert gap.compute == "bfloat16"
    assert 1e-3 < gap.largest_logit_difference < 1
    assert gap.adapter_loss_nats == pytest.approx(record.merged_loss_nats, abs=0.05)
    assert gap.adapter_loss_nats != record.adapter_loss_nats
    assert "computed in bfloat16, as it was trained" in capsys.readouterr().out


@pytest.mark.gpu
def test_a_model_merged_in_16_bits_is_compared_in_float32(
    project: Layout, compose: Callable[..., Config], trained: dict[str, TrialRecord]
) -> None:
    """What is left is the rounding of its weights."""
    settings = ("quant=nf4", "lora.rank=8", "train.steps=30", "seed=21")
    config = compose(*settings, f"ship={trained['nf4'].trial}", "merge.precision=bfloat16")
    record = merge_stage.command([config], project)
    assert record is not None
    assert record.arithmetic_gap is None
    folder = project.merged("small")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapter = project.trials("nf4") / trained["nf4"].trial / "adapter"
    stored = project.quantized("small", "nf4")
    exact = load_adapter(load_base(stored, in_float32(config.quant), DEVICE), adapter)
    plain.to(DEVICE.kind)
    rows = read_rows(project.data("small", "toy") / "validation.jsonl")
    differences = []
    for row in rows[: record.items]:
        ids, labels = last_completion(row, load_tokenizer(folder))
        predicting = torch.tensor(labels[1:]) != IGNORED_LABEL
        with torch.no_grad():
            ours, theirs = (
                model(input_ids=torch.tensor([ids]).to(DEVICE.kind))
                .logits[0, :-1]
                .cpu()[predicting]
                for model in (exact, plain)
            )
        differences.append(float((ours - theirs).abs().max()))
    assert record.largest_logit_difference == pytest.approx(max(differences), rel=1e-3)


def test_a_merge_that_is_too_far_off_fails_and_leaves_the_former_one(
    project: Layout, compose: Callable[..., Config], trained: dict[str, TrialRecord]
) -> None:
    config = compose(
        "quant=int8",
        "lora.rank=8",
        "train.steps=30",
        "seed=21",
        "merge.max_logit_difference=1e-9",
        "ship=int8-r0008",
    )
    evaluate.command([config], project)
    former = project.merged("small")
    before = sorted(path.name for path in former.iterdir()) if former.exists() else None
    with pytest.raises(VerificationError, match=r"merge\.max_logit_difference=1e-09"):
        merge_stage.command([config], project)
    after = sorted(path.name for path in former.iterdir()) if former.exists() else None
    assert after == before
    assert not [path for path in former.parent.iterdir() if path.name.startswith(".merged")]


def test_ship_that_names_no_trial_lists_what_there_is(
    project: Layout, compose: Callable[..., Config], trained: dict[str, TrialRecord]
) -> None:
    config = compose("quant=nf4", "lora.rank=8", "train.steps=30", "seed=21", "ship=nf4-r0099")
    with pytest.raises(ConfigError, match=trained["nf4"].trial):
        merge_stage.command([config], project)


def test_auto_ships_the_best_and_breaks_ties_towards_the_smaller() -> None:
    apart = make_study([Trial("nf4", 1, accuracy=0.7), Trial("nf4", 8, accuracy=0.9)])
    even = make_study([Trial("nf4", 1, accuracy=0.9), Trial("nf4", 8, accuracy=0.9)])
    chosen = [choose("auto", study)[0].key.dials["rank"] for study in (apart, even)]
    assert chosen == [8, 1]


def test_auto_never_ships_a_trial_that_did_not_finish(
    project: Layout, compose: Callable[..., Config]
) -> None:
    config = compose("quant=nf4", "lora.rank=8", "train.steps=30")
    sweep.run(config, project)
    evaluate.command([config], project)
    study = collect([config], project)
    failed = replace(study, trials=[replace(study.trials[0], status=Status.diverged)])
    with pytest.raises(RecordError, match="all of its declared seeds trained and scored"):
        choose("auto", failed)


def test_scores_are_made_once_and_again_when_the_way_changes(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose("quant=fp16", "seed=31")
    sweep.run(config, project)
    first = evaluate.command([config], project)[0]
    capsys.readouterr()
    assert evaluate.command([config], project)[0] == first
    assert capsys.readouterr().out.count("scored already") == 2
    other = evaluate.command([compose("quant=fp16", "seed=31", "evaluate.batch_size=3")], project)[
        0
    ]
    assert first is not None
    assert other is not None
    assert other.identity != first.identity
    assert other.splits["test"].completion_loss_nats == pytest.approx(
        first.splits["test"].completion_loss_nats, abs=1e-4
    )


def test_evaluating_a_trial_leaves_the_shared_base_as_it_was(
    project: Layout, compose: Callable[..., Config]
) -> None:
    """Two trials scored in turn over one loaded base, against the first one scored alone again."""
    first, second = compose("quant=nf4", "seed=41"), compose("quant=nf4", "seed=42", "lora.rank=4")
    for config in (first, second):
        sweep.run(config, project)
    together = [evaluate.command([config], project)[0] for config in (first, second)]
    shutil.rmtree(project.evaluations("nf4"))
    again = evaluate.command([first], project)[0]
    assert together[0] is not None
    assert again is not None
    assert again.items_sha256 == together[0].items_sha256
