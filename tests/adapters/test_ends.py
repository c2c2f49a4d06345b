"""LoRA beside the output head and the embeddings, tied or not, against plain PEFT."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from lorascope.adapters.attach import attach, load_adapter
from lorascope.adapters.kinds import kind_of
from lorascope.adapters.layers import model_parts
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.targets import select
from lorascope.config import Config, Targets
from lorascope.errors import ConfigError, LorascopeError
from lorascope.execution import sweep
from lorascope.execution.packs import Trial, packs_of
from lorascope.files.layout import Layout
from lorascope.objectives import logits
from lorascope.objectives.kinds import Places
from lorascope.quantizers.loading import load_base
from lorascope.records import Status
from lorascope.scoring.evaluation import LoadedBase
from lorascope.stages import evaluate, merge
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand
from tests.adapters.test_lone_kinds import LINEAR
from tests.adapters.test_own_methods import IDS, small
from tests.conftest import BASE_OVERRIDES
from tests.counting.architecture_cases import config_values, meta_model, peft_count
from tests.devices import CPU
from tests.packs import bare_losses, plan_for, train_alone
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]
BOTH = ("lora.head=true", "lora.embeddings=true", "lora.rank=4", "lora.alpha=8")


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("case", ["llama", "llama tied", "gpt2", "gemma3", "gpt_neox"])
def test_the_count_is_pefts(case: str, dora: bool) -> None:
    values = config_values(case)
    parts = model_parts(meta_model(values))
    config = LoraConfig(rank=5, head=True, embeddings=True, dora=dora)
    chosen = select(parts, config)
    assert parts.ends is not None
    assert chosen[-2:] == [parts.ends.embeddings, parts.ends.head]
    counted = kind_of(config).parameters(config, chosen)
    assert counted == peft_count(values, kind_of(config).peft(config, parts, chosen))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["fp16", "nf4"])
def test_training_follows_a_bare_trainer_with_peft(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    config = compose(
        *BOTH, f"quant={mode}", "seed=3", "train.steps=8", "train.micro_batch_size=4",
        "train.log_every_steps=1", "train.weight_decay=0.01",
    )  # fmt: skip
    ours = train_alone(plan_for(project, config, tmp_path / "ours"))
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    torch.manual_seed(3)
    names = [*LINEAR, "embed_tokens", "lm_head"]
    lora = PeftLoraConfig(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM")
    bare = get_peft_model(base, lora)
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=2e-5)
    assert losses[-1] < losses[0] - 0.1
    assert ours.trainable_parameters == bare.get_nb_trainable_parameters()[0]
    bare.save_pretrained(tmp_path / "bare", save_embedding_layers=False)
    trained, theirs = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "bare")
    )
    assert trained.keys() == theirs.keys()
    for name, value in trained.items():
        assert (value - theirs[name]).abs().max() < 1e-4, name


@pytest.mark.parametrize("mode", ["fp16", "nf4"])
def test_the_memory_plan_is_what_training_needs(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    config = compose(*BOTH, f"quant={mode}", "train.steps=3", "lora.dropout=0.1")
    assert_close(*trained_and_predicted(plan_for(project, config, tmp_path / "adapter")))
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    with torch.no_grad():
        ours = load_adapter(base, tmp_path / "adapter")(input_ids=IDS).logits
        base = load_base(project.quantized("small", mode), config.quant, CPU)
        theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        assert torch.equal(ours, theirs(input_ids=IDS).logits)


def test_a_tied_head_is_untied_where_it_is_merged(project: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "a project")
    shutil.copytree(project.root, layout.root)
    shutil.rmtree(layout.root / "experiments", ignore_errors=True)
    (point,) = expand(
        layout, [*BASE_OVERRIDES, *BOTH, "quant=nf4", "train.learning_rate=0.02", "ship=nf4-r0004"]
    )
    LoadedBase.key = None
    assert sweep.run(point, layout).status is Status.completed
    evaluate.command([point], layout)
    merged = merge.command([point], layout)
    assert merged is not None
    assert (merged.passed, merged.untied_head) == (True, True)
    plain = AutoModelForCausalLM.from_pretrained(layout.merged("small"), dtype=torch.float32)
    assert plain.lm_head.weight is not plain.model.embed_tokens.weight
    base = load_base(layout.quantized("small", "nf4"), point.quant, CPU)
    with torch.no_grad():
        said = load_adapter(base, declare_trial(point, layout).folder / "adapter")
        gap = plain.eval()(input_ids=IDS).logits - said(input_ids=IDS).logits
    assert gap.abs().max() < 1e-3


def test_a_head_in_parts_drops_again_what_it_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of a head that is run again is that of the loss, by finite differences."""
    monkeypatch.setattr(logits, "LOGITS_AT_ONCE", 4 * 103)
    config = LoraConfig(rank=4, dropout=0.5, head=True)
    model = attach(small("llama"), config, seed=0).double().train()
    trained = model.get_base_model().lm_head.lora_B["default"].weight
    places = Places(torch.arange(18), [18])

    def loss() -> Tensor:
        torch.manual_seed(5)
        found = logits.forward_at(model.get_base_model(), IDS, None, places)
        assert len(found.sizes) > 1
        return found.each(lambda rows: rows.logsumexp(-1)).sum()

    with torch.no_grad():
        trained.normal_()
    loss().backward()  # type: ignore[no-untyped-call]
    way = torch.randn_like(trained)
    slope = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            trained += step * way
            slope.append(loss())
            trained -= step * way
    assert trained.grad is not None
    expected = (slope[0] - slope[1]) / 2e-5
    assert float((trained.grad * way).sum()) == pytest.approx(float(expected), rel=1e-5)


def test_such_trials_are_trained_one_by_one(project: Layout) -> None:
    points = expand(project, [*BASE_OVERRIDES, "quant=nf4", "lora.head=true", "lora.rank=2,4,8"])
    trials = [Trial(**vars(declare_trial(point, project)), work=1.0) for point in points]
    assert [len(pack) for pack in packs_of(trials)] == [1, 1, 1]


def test_what_cannot_be_trained_is_refused(project: Layout) -> None:
    parts = model_parts(meta_model(config_values("llama")))
    named = LoraConfig(targets=Targets.modules, modules=["q_proj", "lm_head"])
    with pytest.raises(ConfigError, match=r"lora.modules=.*lm_head.*lora.head=true"):
        select(parts, named)
    with pytest.raises(LorascopeError, match=r"lora.init='?olora.*head and embeddings"):
        expand(project, [*BASE_OVERRIDES, "quant=fp16", "lora.head=true", "lora.init=olora"])
