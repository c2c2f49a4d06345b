"""Early stopping: each trial by its own validations, its best weights kept, others untouched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from lorascope.adapters.attach import attach, load_adapter
from lorascope.config import Config
from lorascope.config.rules import validate
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, tokenize_row
from lorascope.errors import ConfigError
from lorascope.execution import sweep
from lorascope.execution.progress import sentence
from lorascope.files.layout import Layout
from lorascope.files.store import read_record
from lorascope.objectives.completion import Completion, completion_loss
from lorascope.quantizers.loading import load_base
from lorascope.records import TrainingResult, TrialRecord, ValidationPoint
from lorascope.training.log import Diverged
from lorascope.training.progress import StepReport, Stopped, ValidationReport
from lorascope.training.run import train_pack
from lorascope.training.validation import best_of, has_stopped
from tests.devices import CPU
from tests.packs import bare_collator, pack_plan, plan_for, train_alone

Compose = Callable[..., Config]

EARLY = ("train.steps=60", "train.validate_every_steps=3", "train.patience=3")
"""The small project's colours follow from no rule that its model could find: it learns which ones
there are, and then the training rows by heart."""
TRIALS = (
    ("lora.rank=4", "seed=1200"),
    ("lora.rank=4", "seed=1201", "train.learning_rate=3e-4"),
    ("lora.rank=16", "seed=1202", "train.learning_rate=3e-2"),
    ("lora.rank=4", "seed=1203", "train.learning_rate=3e-3", "lora.dropout=0.1"),
)
"""They stop at different steps, and the second never."""


def points(*losses_nats: float | None) -> list[ValidationPoint]:
    return [ValidationPoint(step, loss) for step, loss in enumerate(losses_nats, start=1)]


def trained(
    project: Layout, configs: Sequence[Config], folder: Path, checkpoints: Path | None = None
) -> list[TrainingResult]:
    plan = pack_plan(project, configs, [folder / str(index) for index in range(len(configs))])
    results = [
        outcome
        for outcome in train_pack(replace(plan, checkpoints=checkpoints), CPU)
        if isinstance(outcome, TrainingResult)
    ]
    assert len(results) == len(configs)
    return results


@pytest.fixture(scope="module")
def undisturbed(
    project: Layout, compose: Compose, tmp_path_factory: pytest.TempPathFactory
) -> list[TrainingResult]:
    """A pack of all four, trained without a break."""
    configs = [compose("quant=fp16", *EARLY, *own) for own in TRIALS]
    return trained(project, configs, tmp_path_factory.mktemp("undisturbed"))


def said(result: TrainingResult) -> tuple[object, ...]:
    """All of a result that must not depend on company, kills or the clock."""
    return (
        result.adapter_sha256, result.losses, result.validations, result.validation_loss_nats,
        result.steps, result.stopped_at_step, result.saved_step, result.processed_tokens,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("losses_nats", "best_step", "missed"),
    [
        ([], None, 0),
        ([3.0], 1, 0),
        ([3.0, 2.0, 2.5, 2.25], 2, 2),
        ([3.0, 2.0, 2.0, 1.0], 4, 0),
        # As low as before is not lower.
        ([2.0, 2.0, 2.0], 1, 2),
        ([None, None], None, 2),
        ([3.0, None, 2.0, None], 3, 1),
    ],
)
def test_the_best_is_the_first_of_the_lowest_and_those_since_are_misses(
    losses_nats: list[float | None], best_step: int | None, missed: int
) -> None:
    own = points(*losses_nats)
    best = best_of(own)
    assert (best.step if best else None) == best_step
    assert [has_stopped(own, patience) for patience in (missed, missed + 1)] == [missed > 0, False]
    assert not has_stopped(own, 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.validate_every_steps=-1",
            r"train\.validate_every_steps=-1.*must be 0 or more.*0 validates",
        ),
        ("train.patience=-1", r"train\.patience=-1.*must be 0 or more.*0 never stops"),
        ("train.patience=2", r"train\.patience=2.*no.*Set train\.validate_every_steps"),
    ],
)
def test_settings_that_cannot_be_are_refused(compose: Compose, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(compose(override))


def bare_early_stopping(
    project: Layout, config: Config, folder: Path
) -> tuple[list[tuple[int, float]], int, Trainer]:
    """Validations, best step and trainer of what anyone would write with transformers and PEFT."""
    train, plan = config.train, plan_for(project, config, folder)
    tokenizer = load_tokenizer(plan.base)
    model = attach(load_base(plan.base, config.quant, CPU), config.adapter, config.seed)
    rows = [tokenize_row(row, tokenizer) for row in read_rows(plan.data / "train.jsonl")]
    validation = Completion().validation_samples(
        read_rows(plan.data / "validation.jsonl"), tokenizer
    )
    splits = [
        [(torch.tensor(ids), torch.tensor(labels)) for ids, labels in split]
        for split in (rows, validation)
    ]
    arguments = TrainingArguments(
        str(folder), max_steps=train.steps or 0, learning_rate=train.learning_rate,
        per_device_train_batch_size=train.micro_batch_size, lr_scheduler_type=train.schedule,
        weight_decay=train.weight_decay, max_grad_norm=train.max_gradient_norm,
        seed=config.seed, data_seed=config.seed, report_to="none", use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, per_device_eval_batch_size=8, eval_strategy="steps",
        eval_steps=train.validate_every_steps, save_strategy="steps",
        save_steps=train.validate_every_steps, load_best_model_at_end=True,
        metric_for_best_model="eval_loss", greater_is_better=False, label_names=["labels"],
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=splits[0],
        eval_dataset=splits[1],
        data_collator=bare_collator,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=train.patience)],
    )
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    best = trainer.state.best_model_checkpoint or ""
    validated = [(int(entry["step"]), float(entry["eval_loss"])) for entry in history]
    return validated, int(best.rpartition("-")[2]), trainer


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "number"), [("nf4", 0), ("fp16", 1), ("fp16", 2)])
def test_a_pack_of_one_stops_where_transformers_own_callback_stops(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, number: int
) -> None:
    config = compose(f"quant={mode}", *EARLY, *TRIALS[number])
    validated, best_step, trainer = bare_early_stopping(project, config, tmp_path / "bare")
    ours = train_alone(plan_for(project, config, tmp_path / "ours"))
    assert [point.step for point in ours.validations] == [step for step, _ in validated]
    for point, (_, loss) in zip(ours.validations, validated, strict=True):
        assert point.loss_nats == pytest.approx(loss, abs=1e-4)
    assert ours.steps == trainer.state.global_step
    assert ours.stopped_at_step == (None if ours.steps == 60 else ours.steps)
    assert ours.saved_step == best_step
    saved = load_file(tmp_path / "ours/adapter_model.safetensors")
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            own = saved[name.replace(".default", "")]
            assert torch.allclose(own, parameter.detach(), atol=1e-3), name


def test_what_is_saved_is_the_best_validated_step(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    """The saved adapter is that of a training that ends there, at a rate that does not."""
    config = compose("quant=fp16", *EARLY, *TRIALS[2], "train.schedule=constant")
    plan = plan_for(project, config, tmp_path / "a")
    result = train_alone(plan)
    assert result.stopped_at_step == result.steps < 60
    best = best_of(result.validations)
    assert best is not None
    assert result.saved_step == best.step == result.steps - 9
    assert result.validation_loss_nats == best.loss_nats
    model = load_adapter(load_base(plan.base, plan.quant, CPU), tmp_path / "a")
    rows = read_rows(plan.data / "validation.jsonl")
    loss_sum, tokens = completion_loss(model, load_tokenizer(plan.base), rows, 8)
    assert loss_sum / tokens == best.loss_nats
    shorter = replace(
        config, train=replace(config.train, steps=best.step, patience=0, validate_every_steps=0)
    )
    until_there = train_alone(plan_for(project, shorter, tmp_path / "b"))
    assert until_there.adapter_sha256 == result.adapter_sha256
    # Steps, tokens and losses are those that were trained, not those that are saved.
    longer = replace(shorter, train=replace(shorter.train, steps=result.steps))
    until_the_stop = train_alone(plan_for(project, longer, tmp_path / "c"))
    assert until_the_stop.processed_tokens == result.processed_tokens
    assert until_the_stop.losses == result.losses


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_trials_that_stop_at_different_steps_are_equal_to_themselves_alone(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    """In the mode whose outliers are found over all rows of a batch, and with layers that are
    computed twice."""
    shared = ("quant=int8", *EARLY, "train.gradient_checkpointing=true")
    configs = [compose(*shared, *own) for own in TRIALS]
    packed = trained(project, configs, tmp_path / "packed")
    assert packed[1].stopped_at_step is None
    assert len({result.stopped_at_step for result in packed}) == len(TRIALS)
    for config, result in zip(configs, packed, strict=True):
        alone = train_alone(plan_for(project, config, tmp_path / "alone"))
        assert said(result) == said(alone)


def test_a_neighbour_that_stops_leaves_the_others_bits(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    """Those of a pack in which nobody stops, and of one that is not validated either."""
    shared = ("quant=fp16", "train.steps=30", "train.schedule=constant")
    # Both neighbours are best at the end.
    own_settings = (TRIALS[1], TRIALS[2], (*TRIALS[1], "lora.dropout=0.1", "seed=1207"))
    ways = (("3", "2"), ("3", "0"), ("0", "0"))
    packs = []
    for every, patience in ways:
        early = (f"train.validate_every_steps={every}", f"train.patience={patience}")
        configs = [compose(*shared, *early, *own) for own in own_settings]
        packs.append(trained(project, configs, tmp_path / (every + patience)))
    stopping, validated, plain = packs
    assert [result.stopped_at_step for result in stopping] == [None, 18, None]
    assert [result.steps for result in validated] == [30, 30, 30]
    assert [result.saved_step for result in validated] == [30, 30, 30]
    for with_validation, without in zip(validated, plain, strict=True):
        assert without.validations == []
        assert said(with_validation)[:2] == said(without)[:2]
        assert with_validation.processed_tokens == without.processed_tokens
        assert with_validation.validations[-1].loss_nats == without.validation_loss_nats
    for number in (0, 2):
        assert stopping[number].losses == plain[number].losses
        assert stopping[number].validations == validated[number].validations
        assert stopping[number].adapter_sha256 == plain[number].adapter_sha256


def test_a_trial_that_gets_worse_before_the_last_step_is_saved_with_its_best_weights(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    """Patience that does not run out still keeps the best; the last step is validated whatever
    the interval."""
    early = ("train.steps=20", "train.validate_every_steps=3", "train.patience=50")
    config = compose("quant=fp16", *early, *TRIALS[2])
    result = train_alone(plan_for(project, config, tmp_path / "a"))
    assert [point.step for point in result.validations] == [3, 6, 9, 12, 15, 18, 20]
    assert (result.steps, result.stopped_at_step) == (20, None)
    best = best_of(result.validations)
    assert best is not None
    assert result.saved_step == best.step < 20
    assert result.validation_loss_nats == best.loss_nats


class _Killed(Exception):
    pass


def test_a_killed_pack_resumes_with_what_its_validations_said(
    project: Layout, compose: Compose, undisturbed: list[TrainingResult], tmp_path: Path
) -> None:
    """When two trials have stopped; the next test stops where the first one does."""
    killed_at = 40
    shared = ("quant=fp16", *EARLY, "train.checkpoint_every_steps=2")
    configs = [compose(*shared, *own) for own in TRIALS]
    plan = pack_plan(project, configs, [tmp_path / str(index) for index in range(len(configs))])
    plan = replace(plan, checkpoints=tmp_path / "checkpoints")

    def kill(report: StepReport | ValidationReport) -> bool:
        if isinstance(report, StepReport) and report.step > killed_at:
            raise _Killed
        return False

    with pytest.raises(_Killed):
        train_pack(plan, CPU, kill)
    resumed = train_pack(plan, CPU)
    for before, after in zip(undisturbed, resumed, strict=True):
        assert isinstance(after, TrainingResult)
        assert said(after) == said(before)
        stopped_before = after.stopped_at_step is not None and after.stopped_at_step <= killed_at
        assert after.resumed_at_step == (0 if stopped_before else killed_at // 2 * 2)
        assert after.tokens_per_second > 0


def test_a_pack_that_is_asked_to_stop_goes_on_from_there(
    project: Layout, compose: Compose, undisturbed: list[TrainingResult], tmp_path: Path
) -> None:
    """Asked at a step of a validation, in which a trial stops early."""
    configs = [compose("quant=fp16", *EARLY, *own) for own in TRIALS]
    step = undisturbed[2].stopped_at_step
    assert step is not None
    plan = pack_plan(project, configs, [tmp_path / str(index) for index in range(len(configs))])
    plan = replace(plan, checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Stopped):
        train_pack(plan, CPU, lambda r: isinstance(r, StepReport) and r.step == step)
    resumed = trained(project, configs, tmp_path, checkpoints=tmp_path / "checkpoints")
    assert [said(result) for result in resumed] == [said(result) for result in undisturbed]


def test_training_ends_when_no_trial_is_left(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    """Stopped or diverged; a step after which none is left is no checkpoint to resume from."""
    wild = ("train.learning_rate=1e30", "train.max_gradient_norm=1e30", "seed=1204")
    shared = ("quant=fp16", *EARLY, "train.checkpoint_every_steps=1")
    configs = [compose(*shared, *own) for own in (TRIALS[0], TRIALS[2], wild)]
    plan = pack_plan(project, configs, [tmp_path / str(index) for index in range(len(configs))])
    plan = replace(plan, checkpoints=tmp_path / "checkpoints")
    seen: list[StepReport] = []

    def note(report: StepReport | ValidationReport) -> bool:
        seen.extend([report] if isinstance(report, StepReport) else [])
        return False

    slow, fast, lost = train_pack(plan, CPU, note)
    assert isinstance(lost, Diverged)
    assert isinstance(slow, TrainingResult)
    assert isinstance(fast, TrainingResult)
    assert fast.steps < slow.steps == seen[-1].step < 60
    assert fast.train_seconds < slow.train_seconds
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == [f"checkpoint-{slow.steps - 1}"]


def test_a_record_says_where_a_trial_stopped_and_what_is_saved(
    project: Layout, compose: Compose
) -> None:
    record = sweep.run(compose("quant=nf4", *EARLY, *TRIALS[0], "seed=1205"), project)
    result = record.result
    assert result is not None
    assert result.stopped_at_step == result.steps
    assert read_record(project.trials("nf4") / record.trial, TrialRecord) == record
    expected = f", stopped at step {result.steps}, best of step {result.saved_step}"
    assert sentence(record).endswith(expected)
    assert record.plan is not None
    measured = result.memory["train"].tracked_peak_bytes
    assert record.plan.peak_bytes["train"] == pytest.approx(measured, rel=0.001)


def test_without_patience_nothing_is_told_or_kept(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    config = compose("quant=fp16", "seed=1206")
    assert (config.train.validate_every_steps, config.train.patience) == (0, 0)
    result = train_alone(plan_for(project, config, tmp_path / "a"))
    assert (result.validations, result.stopped_at_step, result.saved_step) == ([], None, 6)
