"""Preference losses against TRL's trainer, plain torch, lone trials, and measured memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from lorascope.adapters.attach import attach
from lorascope.config import Config, TrainConfig
from lorascope.data.rows import PreparedRow, Segment, read_rows, write_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import Layout
from lorascope.objectives.completion import completion_loss
from lorascope.objectives.evaluation import forward_of, summed_loss
from lorascope.objectives.kinds import objective_of
from lorascope.objectives.preference import LOSSES, Replies
from lorascope.quantizers.loading import load_base
from lorascope.records import TrainingResult
from lorascope.training.run import train_pack
from lorascope.training.trial_plan import PackPlan
from tests.conftest import COLORS
from tests.devices import CPU, assert_same_training
from tests.packs import pack_plan, train_alone
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]
PAIRED = ("data.format=pairs", "train.objective=dpo", "train.log_every_steps=1")


def pair(number: int) -> PreparedRow:
    """A question with a right and a wrong reply, of one word or of two."""
    prompt = f"thing {number} has the color"
    right, wrong = COLORS[number % 8], COLORS[(number + 3) % 8]
    chosen = f" {right}<eos>" if number % 3 else f" {right} {right}<eos>"
    segments = [Segment(prompt, False), Segment(chosen, True)]
    return PreparedRow(str(number), segments, prompt, chosen, rejected=f" {wrong}<eos>")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared pairs: 64 to train on, 16 held out."""
    folder = tmp_path_factory.mktemp("pairs")
    write_rows(folder / "train.jsonl", [pair(number) for number in range(64)])
    write_rows(folder / "validation.jsonl", [pair(number) for number in range(64, 80)])
    return folder


def plan_of(
    project: Layout, pairs: Path, configs: Sequence[Config], folders: Sequence[Path]
) -> PackPlan:
    return replace(pack_plan(project, configs, folders), data=pairs)


def trl_losses(project: Layout, config: Config, rows: Sequence[PreparedRow], loss: str,
               folder: Path) -> list[dict[str, float]]:  # fmt: skip
    """What TRL's own trainer logs, step by step, of the same adapter and the same rows."""
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    train, stored = config.train, project.quantized("small", config.quant.name)
    base = load_base(stored, config.quant, CPU)
    arguments = DPOConfig(
        str(folder), max_steps=train.steps or 0, learning_rate=train.learning_rate,
        per_device_train_batch_size=train.batch_size, lr_scheduler_type=train.schedule,
        max_grad_norm=train.max_gradient_norm, seed=config.seed, data_seed=config.seed,
        beta=train.beta, loss_type=[loss], logging_steps=1, report_to="none", use_cpu=True,
        bf16=False, gradient_checkpointing=False, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    replies = [
        {
            "prompt": row.prompt,
            "chosen": row.completion.removesuffix("<eos>"),
            "rejected": str(row.rejected).removesuffix("<eos>"),
        }
        for row in rows
    ]
    trainer = DPOTrainer(
        model=attach(base, config.adapter, config.seed), args=arguments,
        train_dataset=Dataset.from_list(replies), processing_class=load_tokenizer(stored),
    )  # fmt: skip
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "theirs"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_ten_steps_follow_trls_trainer(
    project: Layout, pairs: Path, compose: Compose, tmp_path: Path, loss: str, theirs: str
) -> None:
    config = compose(
        *PAIRED, f"train.objective={loss}", "quant=fp16", "lora.rank=8", "seed=3", "train.steps=10",
        "train.beta=0.2", "train.learning_rate=2e-3", "train.schedule=constant",
    )  # fmt: skip
    ours = train_alone(plan_of(project, pairs, [config], [tmp_path / "ours"]), CPU)
    rows = [pair(number) for number in range(64)]
    logged = trl_losses(project, config, rows, theirs, tmp_path / "trl")
    assert len(ours.losses) == len(logged) == 10
    for point, entry in zip(ours.losses, logged, strict=True):
        assert point.loss_nats == pytest.approx(float(entry["loss"]), abs=1e-5)
        for name, value in point.metrics.items():
            if name != "kl":
                assert value == pytest.approx(float(entry[name]), abs=1e-3), name
    assert ours.losses[-1].metrics["rewards/margins"] > 0.01


GRID = (
    ("lora.rank=2", "train.beta=0.05", "seed=0"),
    ("lora.rank=16", "train.beta=0.5", "seed=0", "train.label_smoothing=0.2"),
    ("lora.rank=4", "train.beta=0.1", "seed=0", "train.learning_rate=3e-3"),
)
"""One seed, so that no trial's batch is padded for another's: then they are equal to the bit."""


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_trials_of_several_ranks_and_betas_are_packed_to_the_bit(
    project: Layout, pairs: Path, compose: Compose, tmp_path: Path
) -> None:
    shared = (*PAIRED, "quant=nf4", "train.micro_batch_size=4", "train.validate_every_steps=3")
    configs = [compose(*shared, *own) for own in GRID]
    folders = [tmp_path / str(number) for number in range(len(configs))]
    packed = train_pack(plan_of(project, pairs, configs, folders), CPU)
    alone = tmp_path / "alone"
    for config, folder, result in zip(configs, folders, packed, strict=True):
        assert isinstance(result, TrainingResult)
        lone = train_alone(plan_of(project, pairs, [config], [alone]), CPU)
        assert_same_training(result, lone)
        assert [p.metrics for p in result.losses] == [p.metrics for p in lone.losses]
        assert result.validations == lone.validations
        ours, theirs = (load_file(f / "adapter_model.safetensors") for f in (folder, alone))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    first = packed[0]
    assert isinstance(first, TrainingResult)
    # At the start nothing has moved: every margin is 0, and the loss is that of a coin.
    assert first.losses[0].loss_nats == pytest.approx(math.log(2), abs=1e-5)


def test_plans_hold_for_two_replies_a_row(
    project: Layout, pairs: Path, compose: Compose, tmp_path: Path
) -> None:
    shared = (*PAIRED, "quant=nf4", "train.micro_batch_size=4")
    configs = [compose(*shared, f"lora.rank={rank}") for rank in (2, 8)]
    plan = plan_of(project, pairs, configs, [tmp_path / "2", tmp_path / "8"])
    result, predicted = trained_and_predicted(plan)
    assert result.largest_batch is not None
    # Two sequences of each of four pairs.
    assert (result.largest_batch[0], predicted.micro_batch_size) == (8, 4)
    assert_close(result, predicted)


def test_losses_are_those_of_the_papers() -> None:
    torch.manual_seed(0)
    chosen, rejected, base_chosen, base_rejected = (-10 * torch.rand(4, 5)).unbind()
    long, short = torch.tensor([4, 5, 6, 7, 8]), torch.tensor([3, 3, 2, 5, 9])
    right = Replies(chosen, base_chosen, long)
    wrong = Replies(rejected, base_rejected, short)
    train = TrainConfig(beta=0.3, label_smoothing=0.1)
    logits = 0.3 * ((chosen - rejected) - (base_chosen - base_rejected))
    told = functional.binary_cross_entropy_with_logits(
        logits, torch.full_like(logits, 0.9), reduction="none"
    )
    torch.testing.assert_close(LOSSES["dpo"].loss(right, wrong, train), told)
    means = (chosen - base_chosen) / long - (rejected - base_rejected) / short
    torch.testing.assert_close(LOSSES["ipo"].loss(right, wrong, train), (means - 1 / 0.6) ** 2)
    margins = 0.3 * (chosen / long - rejected / short) - 0.7
    told = functional.binary_cross_entropy_with_logits(
        margins, torch.full_like(margins, 0.9), reduction="none"
    )
    simpo = replace(train, target_margin=0.7)
    torch.testing.assert_close(LOSSES["simpo"].loss(right, wrong, simpo), told)
    odds = [p / (1 - p) for p in ((chosen / long).exp(), (rejected / short).exp())]
    ratio = -torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))
    torch.testing.assert_close(
        LOSSES["orpo"].loss(right, wrong, train), -chosen / long + 0.3 * ratio
    )


def test_the_reference_is_the_bare_base(project: Layout, compose: Compose) -> None:
    config = compose(*PAIRED, "quant=nf4")
    stored = project.quantized("small", "nf4")
    base, tokenizer = load_base(stored, config.quant, CPU), load_tokenizer(stored)
    objective = objective_of([config.train])
    rows = [pair(number) for number in range(8)]
    bare = objective.samples(rows, tokenizer, train_on_prompt=False)
    samples = objective.with_reference(bare, base, 4)
    adapted = attach(base, config.adapter, config.seed)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.eval()
    batch = objective.collate(samples, 1, 0)
    assert batch.reference is not None
    with torch.no_grad():
        told = objective.losses(forward_of(adapted), batch).metrics
        logits = adapted(batch.input_ids, attention_mask=batch.attention_mask).logits
        with adapted.disable_adapter():
            plain = adapted(batch.input_ids, attention_mask=batch.attention_mask).logits
    mask = batch.labels[:, 1:] != -100
    labels = batch.labels[:, 1:].clamp(min=0)[..., None]
    policy, reference = (
        torch.where(mask, own[:, :-1].log_softmax(-1).gather(-1, labels)[..., 0], 0.0)
        for own in (logits, plain)
    )
    torch.testing.assert_close(batch.reference[:, :-1], reference, atol=1e-5, rtol=0)
    gains = 0.1 * (policy - reference).sum(1)
    assert float(told["rewards/chosen"]) == pytest.approx(float(gains[:8].sum()), abs=1e-4)
    assert float(told["rewards/rejected"]) == pytest.approx(float(gains[8:].sum()), abs=1e-4)
    assert float(told["logps/chosen"]) == pytest.approx(float(policy[:8].sum()), rel=1e-5)
    right = gains[:8] > gains[8:]
    assert float(told["rewards/accuracies"]) == float(right.sum())
    kl = (((policy - reference) ** 2).sum(1) / mask.sum(1)).sum() / 4
    assert float(told["kl"]) == pytest.approx(float(kl), rel=1e-4)


def test_a_merged_model_is_judged_by_its_chosen_replies_alone(
    project: Layout, pairs: Path, compose: Compose
) -> None:
    config = compose(*PAIRED, "quant=fp16")
    stored = project.quantized("small", "fp16")
    base, tokenizer = load_base(stored, config.quant, CPU), load_tokenizer(stored)
    rows = read_rows(pairs / "validation.jsonl")
    served = objective_of([config.train]).as_served()
    samples = served.validation_samples(rows, tokenizer)
    summed, tokens = summed_loss(served, base, samples, 8)
    assert (summed, tokens) == completion_loss(base, tokenizer, rows, 8)
    assert tokens == sum(len(tokenizer.tokenize(row.completion)) for row in rows)
