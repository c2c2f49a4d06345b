"""A pack of trials: adapters trained at once on one frozen base by transformers' Trainer."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, tokenize_rows
from lorascope.machine.devices import Device, compute_precision
from lorascope.meters.batches import BatchMemory
from lorascope.meters.phases import PhaseMeter
from lorascope.meters.tracker import unwrapped
from lorascope.objectives.completion import completion_samples
from lorascope.quantizers.footprint import measure_footprint
from lorascope.quantizers.loading import arithmetic, load_base
from lorascope.records import TrainingResult
from lorascope.training.adapter_check import CheckedAdapter, Unsaved, check_adapter
from lorascope.training.batches import PackedSamples, Padding, order_expression
from lorascope.training.checkpoint_files import last_checkpoint
from lorascope.training.log import Diverged, PackLog, TrainingWatch
from lorascope.training.loop import PackedTrainer
from lorascope.training.optimizer import moment_bytes
from lorascope.training.pack import PackedModel, pack_adapters, refuse_unpackable
from lorascope.training.progress import Progress, Stopped, ValidationReport, untold
from lorascope.training.result import SharedFacts, TrainedPack, result_of
from lorascope.training.trial_plan import PackPlan, TrialPlan
from lorascope.training.validation import PackValidation


def train_pack(
    plan: PackPlan,
    device: Device,
    progress: Progress = untold,
    memory: BatchMemory | None = None,
) -> list[TrainingResult | Diverged | Unsaved]:
    """Train all trials at once; save each one's adapter and measure it on the validation split.

    What a trial computes does not depend on the others but for rounding: see `packing`.

    Args:
        memory: gets to know which batches needed most.

    Returns:
        In the order of `plan.trials`: results, and the reason for a trial whose numbers became NaN
        or infinite, or whose adapter the disk had no room for.

    Raises:
        Unpackable: there are several trials, and this base can only train one at a time.
        ConfigError: the adapter's targets match no layer.
        Stopped: `progress` asked for it, and the pack is saved in `plan.checkpoints`.
    """
    order = sorted(range(len(plan.trials)), key=lambda index: plan.trials[index].lora.rank)
    trials = [plan.trials[index] for index in order]
    outcomes = _train_by_rank(plan, trials, device, progress, memory or BatchMemory(device))
    by_place = dict(zip(order, outcomes, strict=True))
    return [by_place[place] for place in range(len(trials))]


def _train_by_rank(
    plan: PackPlan,
    trials: Sequence[TrialPlan],
    device: Device,
    progress: Progress,
    memory: BatchMemory,
) -> list[TrainingResult | Diverged | Unsaved]:
    """`trials` are those of `plan`, by rank, and so are the outcomes."""
    meter = PhaseMeter(device)
    started = time.perf_counter()
    with meter.phase("load"):
        tokenizer = load_tokenizer(plan.base)
        base = load_base(plan.base, plan.quant, device, plan.attention)
        refuse_unpackable(base, len(trials))
        model_bytes = measure_footprint(base).total_bytes
        pack = pack_adapters(base, [t.lora for t in trials], [t.seed for t in trials])
    load_seconds = time.perf_counter() - started
    with meter.phase("train"):
        trained = _run_trainer(plan, trials, pack, tokenizer, device, memory, progress)
        pack.unpack()
        del pack
        # The Trainer's parts refer to each other, and to what validation needs no more.
        gc.collect()
    with meter.phase("evaluate"):
        checked = _check_all(base, plan, trials, trained, tokenizer, memory, progress)
    shared = SharedFacts(
        model_bytes=model_bytes,
        compute_dtype=compute_precision(plan.quant, device).value,
        attention=str(base.config._attn_implementation),
        arithmetic=arithmetic(base),
        load_seconds=load_seconds,
        pack_ranks=[trial.lora.rank for trial in trials],
        memory=memory.with_peaks(meter.phases),
        largest_batch=memory.largest.shape if memory.largest else None,
        largest_evaluation_batch=memory.evaluation[0].shape if memory.evaluation else None,
    )
    return [
        own if isinstance(own, Diverged | Unsaved) else result_of(shared, trained, index, own)
        for index, own in enumerate(checked)
    ]


def _check_all(
    base: PreTrainedModel,
    plan: PackPlan,
    trials: Sequence[TrialPlan],
    trained: TrainedPack,
    tokenizer: PreTrainedTokenizerBase,
    memory: BatchMemory,
    progress: Progress,
) -> list[CheckedAdapter | Diverged | Unsaved]:
    samples = completion_samples(read_rows(plan.data / "validation.jsonl"), tokenizer)
    checked: list[CheckedAdapter | Diverged | Unsaved] = []
    for index, (trial, weights) in enumerate(zip(trials, trained.weights, strict=True)):
        progress(ValidationReport(index, len(trials)))
        step = trained.log.diverged_at[index]
        if step is not None:
            checked.append(Diverged(f"the loss was not finite at step {step}"))
            continue
        others = [other for other in trained.weights if other is not weights]
        try:
            own = check_adapter(base, plan, trial, weights, others, samples, memory)
            checked.append(own)
        except (Diverged, Unsaved) as error:
            checked.append(error)
    progress(ValidationReport(len(trials), len(trials)))
    return checked


def _run_trainer(
    plan: PackPlan,
    trials: Sequence[TrialPlan],
    pack: PackedModel,
    tokenizer: PreTrainedTokenizerBase,
    device: Device,
    memory: BatchMemory,
    progress: Progress,
) -> TrainedPack:
    rows = read_rows(plan.data / "train.jsonl")
    samples = list(tokenize_rows(rows, tokenizer, plan.train_on_prompt))
    pack.shape.longest_tokens = max(len(ids) for ids, _ in samples)
    log = PackLog(len(trials), device.kind)
    watch = TrainingWatch(log, plan.train.log_every_steps, progress)
    validation = None
    if plan.train.validate_every_steps:
        ordered = replace(plan, trials=trials)
        validation = PackValidation(ordered, pack, tokenizer, memory, watch)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = PackedTrainer(
            memory,
            log,
            [trial.train for trial in trials],
            [trial.seed for trial in trials],
            model=pack,
            args=training_arguments(plan, device, plan.checkpoints or Path(scratch)),
            train_dataset=PackedSamples(samples),
            data_collator=Padding(_pad_token_id(tokenizer, pack.config)),
            callbacks=[validation, watch] if validation else [watch],
        )
        # The Trainer would print every log line itself.
        trainer.remove_callback(PrinterCallback)
        last = last_checkpoint(plan.checkpoints)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    if watch.stopped:
        raise Stopped(trainer.state.global_step, trainer.state.max_steps)
    if validation:
        validation.put_best()
    return TrainedPack(
        weights=[pack.read(index) for index in range(len(trials))],
        optimizer_bytes=moment_bytes(pack.stacks, unwrapped(trainer.optimizer)),
        steps=trainer.state.global_step,
        patience=plan.train.patience,
        log=log,
        watch=watch,
        data_orders=[order_expression(len(samples), trial.seed) for trial in trials],
    )


def training_arguments(plan: PackPlan, device: Device, folder: Path) -> TrainingArguments:
    """Our settings in the Trainer's words."""
    train = plan.train
    precision = compute_precision(plan.quant, device).value
    steps_known = train.steps is not None
    seed = plan.trials[0].seed
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=train.steps if steps_known else -1,
        num_train_epochs=1.0 if steps_known else train.epochs,
        per_device_train_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=train.batch_size // train.micro_batch_size,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        # A value below 1 is a share of all steps.
        warmup_steps=train.warmup_fraction,
        # Each trial's own limit is applied in the step that this switches on.
        max_grad_norm=1.0,
        gradient_checkpointing=train.gradient_checkpointing,
        seed=seed,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=device.kind == "cpu",
        logging_strategy="no",
        save_strategy="steps" if plan.checkpoints and train.checkpoint_every_steps else "no",
        save_steps=train.checkpoint_every_steps or 500,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.kind == "cuda",
    )
    # Several GPUs would each get a part of every trial's batch.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _pad_token_id(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """Any id that the model has will do: padded positions are masked and carry no label. A padding
    token that was added to the tokenizer alone may lie outside its embedding."""
    pad, end = tokenizer.pad_token_id, int(tokenizer.eos_token_id)
    return end if pad is None or pad >= config.get_text_config().vocab_size else int(pad)
