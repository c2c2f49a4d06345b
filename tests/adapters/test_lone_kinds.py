"""Kinds that PEFT's own layers train: counted, trained, planned and merged as PEFT does it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from peft import (
    LNTuningConfig,
    MissConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lorascope.adapters.attach import load_adapter
from lorascope.adapters.exportable import require_exportable
from lorascope.adapters.kinds import KINDS, kind_of
from lorascope.adapters.layers import model_parts
from lorascope.adapters.sparse.layer import PeftSparseConfig
from lorascope.adapters.targets import select
from lorascope.bases.folder import read_json
from lorascope.config import Config, Targets
from lorascope.errors import ConfigError, LorascopeError
from lorascope.execution import sweep
from lorascope.files.layout import ADAPTER_FILES, Layout
from lorascope.quantizers.loading import load_base
from lorascope.records import Status
from lorascope.scoring.evaluation import LoadedBase
from lorascope.scoring.exported_adapter import check_adapter, write_adapter
from lorascope.stages import evaluate, merge, report
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand
from lorascope.training.trial_plan import TrialPlan
from tests.conftest import BASE_OVERRIDES
from tests.counting.architecture_cases import config_values, meta_model, peft_count
from tests.devices import CPU
from tests.packs import Interrupted, bare_losses, interrupted_at, plan_for, train_alone
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]


@dataclass(frozen=True)
class Case:
    """Overrides that choose a kind, and the configuration that one would write with PEFT."""

    overrides: tuple[str, ...]
    peft: Callable[[], PeftConfig]
    modes: tuple[str, ...] = ("fp16", "nf4", "int8", "int4_sym")
    """A kind beside quantized layers is at work in all; one that lets them be, in one of them."""

    @property
    def kind(self) -> str:
        """Its name."""
        return self.overrides[0].partition("=")[2]


LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = (
    Case(
        ("adapter=vera", "vera.rank=16", "vera.dropout=0.1", "vera.projection_seed=7"),
        lambda: VeraConfig(
            r=16, vera_dropout=0.1, projection_prng_key=7, target_modules=LINEAR,
            task_type="CAUSAL_LM",
        ),
    ),
    Case(
        ("adapter=oft", "oft.block_size=8"),
        lambda: OFTConfig(r=0, oft_block_size=8, target_modules=LINEAR, task_type="CAUSAL_LM"),
    ),
    Case(
        ("adapter=miss", "miss.rank=6"),
        lambda: MissConfig(r=6, target_modules=LINEAR, task_type="CAUSAL_LM"),
    ),
    # All weights, so that which are chosen is not asked: tests/adapters/test_sparse.py asks it.
    Case(
        ("adapter=sparse", "sparse.share=1", "sparse.choice=magnitude",
         "sparse.learning_rate_factor=1"),
        lambda: PeftSparseConfig(share=1, target_modules=LINEAR, task_type="CAUSAL_LM"),
    ),
    Case(
        ("adapter=ln",),
        lambda: LNTuningConfig(
            target_modules=["input_layernorm", "post_attention_layernorm", "norm"],
            task_type="CAUSAL_LM",
        ),
        ("int8", "nf4"),
    ),
    Case(
        ("adapter=prompt", "prompt.tokens=5"),
        lambda: PromptTuningConfig(
            num_virtual_tokens=5, prompt_tuning_init="SAMPLE_VOCAB", task_type="CAUSAL_LM"
        ),
        ("nf4",),
    ),
    Case(
        ("adapter=ptuning", "ptuning.tokens=5", "ptuning.hidden=24"),
        lambda: PromptEncoderConfig(
            num_virtual_tokens=5, encoder_hidden_size=24, task_type="CAUSAL_LM"
        ),
        ("int4_sym",),
    ),
    Case(
        ("adapter=prefix", "prefix.tokens=5", "prefix.projection=true"),
        lambda: PrefixTuningConfig(
            num_virtual_tokens=5, prefix_projection=True, task_type="CAUSAL_LM"
        ),
        ("int8", "fp16"),
    ),
)  # fmt: skip
each_mode = pytest.mark.parametrize(
    ("case", "mode"),
    [pytest.param(case, mode, id=f"{mode}-{case.kind}") for case in CASES for mode in case.modes],
)
SETTINGS = ("train.learning_rate=0.02", "seed=3")
COUNTED = {
    "vera": ({}, {"rank": 7}),
    "oft": ({}, {"block_size": 24}, {"block_size": 6, "block_share": True}),
    "miss": ({"rank": 5}, {"rank": 16}),
    "bottleneck": ({"size": 3}, {"targets": Targets.all_linear}),
    "ln": ({},),
    "prompt": ({"tokens": 3},),
    "ptuning": ({"tokens": 3}, {"hidden": 7}),
    "prefix": ({"tokens": 3}, {"tokens": 2, "projection": True}, {"projection": True, "hidden": 9}),
    "prefix_layer": ({"tokens": 3},),
    "sparse": ({}, {"share": 0.3}),
}
DECODERS = ("llama", "gemma3", "mixtral", "gpt_neox", "opt", "falcon 40b", "bloom", "phi3")


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("kind", COUNTED)
def test_the_count_is_pefts(kind: str, architecture: str) -> None:
    values = config_values(architecture)
    model = meta_model(values)
    for settings in COUNTED[kind]:
        config = KINDS[kind].config(**settings)
        chosen = select(model_parts(model), config)
        adapter = kind_of(config).peft(config, model_parts(model), chosen)
        assert kind_of(config).parameters(config, chosen) == peft_count(values, adapter)


@each_mode
@pytest.mark.usefixtures("one_thread")
def test_training_follows_a_bare_trainer_with_peft_in_the_memory_that_is_planned(
    project: Layout, compose: Compose, tmp_path: Path, case: Case, mode: str
) -> None:
    without_dropout = [text for text in case.overrides if "dropout" not in text]
    config = compose(
        *without_dropout, *SETTINGS, f"quant={mode}", "train.steps=8", "train.micro_batch_size=4",
        "train.log_every_steps=1", "train.max_gradient_norm=0.5", "train.weight_decay=0.01",
        f"{case.kind}.learning_rate_factor=0.5",
    )  # fmt: skip
    ours, predicted = trained_and_predicted(plan_for(project, config, tmp_path / "ours"))
    assert_close(ours, predicted)
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    adapter = case.peft()
    vars(adapter).update({name: 0.0 for name in vars(adapter) if name.endswith("dropout")})
    torch.manual_seed(config.seed)
    bare = get_peft_model(base, adapter)
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert ours.trainable_parameters == bare.get_nb_trainable_parameters()[0]
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=2e-5)
    assert losses[-1] < losses[0] - 0.1
    bare.save_pretrained(tmp_path / "bare")
    trained, theirs = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "bare")
    )
    assert trained.keys() == theirs.keys()
    for name, value in trained.items():
        assert (value - theirs[name]).abs().max() < 1e-4, name
    # What is saved loads in plain PEFT, and says there what it says here.
    ids = torch.arange(20).reshape(2, 10)
    bases = [load_base(project.quantized("small", mode), config.quant, CPU) for _ in range(2)]
    plain = PeftModel.from_pretrained(bases[0], tmp_path / "ours").eval()
    with torch.no_grad():
        said = load_adapter(bases[1], tmp_path / "ours")(input_ids=ids).logits
        # PEFT's own gives the logits of a prompt too.
        assert torch.equal(said, plain(input_ids=ids).logits[:, -ids.shape[1] :])


@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.kind)
@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_trial_resumes_to_the_same_bits(
    project: Layout, compose: Compose, tmp_path: Path, case: Case
) -> None:
    config = compose(
        *case.overrides, *SETTINGS, "quant=nf4", "train.checkpoint_every_steps=2",
        "train.validate_every_steps=2", "train.patience=2", "train.gradient_checkpointing=true",
        "train.steps=6",
    )  # fmt: skip
    whole = train_alone(plan_for(project, config, tmp_path / "a"))
    plan = replace(plan_for(project, config, tmp_path / "b"), checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Interrupted):
        train_alone(plan, CPU, interrupted_at(4))
    resumed = train_alone(plan)
    assert resumed.resumed_at_step == 2
    assert resumed.losses == whole.losses
    assert resumed.validation_loss_nats == whole.validation_loss_nats
    assert resumed.adapter_sha256 == whole.adapter_sha256


@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.kind)
def test_dropout_is_planned_too(
    project: Layout, compose: Compose, tmp_path: Path, case: Case
) -> None:
    config = compose(*case.overrides, *SETTINGS, "quant=nf4", "train.steps=3")
    assert_close(*trained_and_predicted(plan_for(project, config, tmp_path / "adapter")))


def require_export(point: Config, layout: Layout, folder: Path) -> None:
    """PEFT gives the trial's logits from an exported adapter, of all methods that it knows."""
    kind, adapter = point.adapter.kind, layout.trials("nf4") / declare_trial(point, layout).name
    peft_type = read_json(adapter / "adapter" / ADAPTER_FILES[0])["peft_type"]
    if kind == "sparse":
        with pytest.raises(ConfigError, match="PEFT has no method"):
            require_exportable("adapter", kind, peft_type, False)
        return
    require_exportable("adapter", kind, peft_type, False)
    folder.mkdir()
    write_adapter(folder, adapter / "adapter", layout.base("small"), None, None)
    few = replace(point, merge=replace(point.merge, verify_items=2))
    check = check_adapter(folder, few, layout, adapter / "adapter", None)
    assert (check.items, check.largest_logit_difference) == (2, 0), kind


def test_a_study_of_all_of_them_is_trained_scored_merged_and_reported(
    project: Layout, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "a project")
    shutil.copytree(project.root, layout.root)
    shutil.rmtree(layout.root / "experiments", ignore_errors=True)
    settings = [text for case in CASES for text in case.overrides[1:]]
    kinds = ["lora", "ia3", *(case.kind for case in CASES)]
    points = expand(layout, [*BASE_OVERRIDES, "quant=nf4", f"adapter={','.join(kinds)}", *settings])
    assert [point.adapter.kind for point in points] == kinds
    LoadedBase.key = None
    for point in points:
        assert sweep.run(point, layout).status is Status.completed
        evaluate.command([point], layout)
    for kind in kinds[1:]:
        merged = merge.command([replace(point, ship=f"nf4-{kind}") for point in points], layout)
        assert merged.passed if merged else KINDS[kind].unmergeable, kind
        if merged:
            AutoModelForCausalLM.from_pretrained(layout.merged("small"))
    for point in points:
        require_export(point, layout, tmp_path / point.adapter.kind)
    report.command(points, layout)
    with (layout.root / "reports/accuracy.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["method"] == "ia3")
    assert (row["targets"], row["rank"], row["status"]) == ("k_v_mlp", "", "completed")
    with (layout.root / "reports/methods.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    for kind, point in zip(kinds, points, strict=True):
        row = rows[KINDS[kind].method.label]
        assert int(row["trainable_parameters"]) == declare_trial(point, layout).trainable_parameters
        merges = str(not KINDS[kind].unmergeable).lower()
        assert (row["merges"], row["modes"]) == (merges, "nf4")
        rate = TrialPlan.of(point, Path()).train.learning_rate
        assert float(row["learning_rate"]) == pytest.approx(rate)
    page = (layout.root / "reports/report.md").read_text()
    assert "against trainable parameters, by method" in page
    assert "one learning rate a method" in page
    assert all(KINDS[kind].method.label in page for kind in kinds)


def test_a_method_without_a_place_among_matrices_is_shown_and_not_merged(
    project: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path / "a project")
    shutil.copytree(project.root, layout.root)
    shutil.rmtree(layout.root / "experiments", ignore_errors=True)
    points = expand(
        layout, [*BASE_OVERRIDES, "quant=nf4", "adapter=bottleneck", "bottleneck.size=8",
                 "train.learning_rate=0.02", "ship=nf4-bottleneck-b0008"],
    )  # fmt: skip
    LoadedBase.key = None
    for point in points:
        assert sweep.run(point, layout).status is Status.completed
        evaluate.command([point], layout)
    assert merge.command(points, layout) is None
    assert "is not merged: its nonlinearity" in capsys.readouterr().out
    report.command(points, layout)
    page = (layout.root / "reports/report.md").read_text()
    assert "bottleneck 8" in page
    counts = (layout.root / "reports/trainable_parameters.csv").read_text()
    assert ",bottleneck,sublayer_ends,8," in counts


def test_a_rank_beyond_a_layers_inputs_is_refused(project: Layout, compose: Compose) -> None:
    config = compose("adapter=miss", "miss.rank=4000", "quant=fp16")
    with pytest.raises(LorascopeError, match=r"miss.rank=4000: is more than .* Set it to"):
        declare_trial(config, project)


def test_a_methods_rate_is_a_multiple_of_loras(compose: Compose) -> None:
    config = compose("adapter=oft", "train.learning_rate=0.001", "oft.learning_rate_factor=3")
    assert TrialPlan.of(config, Path()).train.learning_rate == pytest.approx(0.003)
