"""One trial: an adapter trained on a frozen base by transformers' Trainer."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from lorascope.batch_memory import BatchMemory, MeasuredTrainer
from lorascope.completion_loss import completion_loss
from lorascope.config import LoraConfig, QuantConfig, TrainConfig
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, tokenize_row
from lorascope.devices import Device, compute_precision
from lorascope.footprint import measure_footprint
from lorascope.lora import ADAPTER_FILES, attach, parameter_counts, save_adapter
from lorascope.memory import PhaseMeter
from lorascope.quantization import load_base
from lorascope.records import TrainingResult
from lorascope.store import sha256_of_files
from lorascope.training_steps import Diverged, Padding, Progress, TrainingWatch, loss_points


@dataclass(frozen=True)
class TrainingPlan:
    """All that one training needs, as plain values that travel between processes."""

    base: Path
    base_name: str
    """Written into the adapter instead of a path."""
    data: Path
    adapter: Path
    """Folder to write the adapter to."""
    checkpoints: Path | None
    """Where an interrupted trial resumes from; None keeps no checkpoints."""
    quant: QuantConfig
    lora: LoraConfig
    train: TrainConfig
    seed: int
    attention: str
    evaluate_batch_size: int
    train_on_prompt: bool = False


def train_trial(
    plan: TrainingPlan,
    device: Device,
    progress: Progress | None = None,
    memory: BatchMemory | None = None,
) -> TrainingResult:
    """Train one adapter, save it to `plan.adapter`, and measure it on the validation split.

    `memory` gets to know which batches needed most.

    Raises:
        Diverged: the loss became NaN or infinite.
        ConfigError: the adapter's targets match no layer.
    """
    meter, memory = PhaseMeter(device), memory or BatchMemory(device)
    started = time.perf_counter()
    with meter.phase("load"):
        tokenizer = load_tokenizer(plan.base)
        base = load_base(plan.base, plan.quant, device, plan.attention)
        model_bytes = measure_footprint(base).total_bytes
        model = attach(base, plan.lora, plan.seed)
    loaded = time.perf_counter()
    watch = TrainingWatch(progress)
    with meter.phase("train"):
        trainer = _run_trainer(plan, model, tokenizer, watch, device, memory)
    trained = time.perf_counter()
    _refuse_divergence(model, watch)
    save_adapter(model, plan.adapter, plan.base_name)
    with meter.phase("evaluate"):
        rows = read_rows(plan.data / "validation.jsonl")
        with memory.validation(model, trainer.optimizer):
            loss_sum, tokens = completion_loss(model, tokenizer, rows, plan.evaluate_batch_size)
    if not math.isfinite(loss_sum):
        raise Diverged("the validation loss is not finite")
    finished = time.perf_counter()
    trainable, total = parameter_counts(model)
    points = loss_points(trainer.state)
    tokens_seen = int(trainer.state.num_input_tokens_seen)
    return TrainingResult(
        trainable_parameters=trainable,
        total_parameters=total,
        trainable_percent=100 * trainable / total,
        adapter_bytes=(plan.adapter / "adapter_model.safetensors").stat().st_size,
        optimizer_bytes=optimizer_bytes(trainer.optimizer),
        model_bytes=model_bytes,
        compute_dtype=compute_precision(plan.quant, device).value,
        attention=str(base.config._attn_implementation),
        steps=trainer.state.global_step,
        resumed_at_step=watch.first_step,
        processed_tokens=tokens_seen,
        tokens_per_second=(tokens_seen - watch.first_tokens) / watch.seconds,
        load_seconds=loaded - started,
        train_seconds=watch.seconds,
        evaluate_seconds=finished - trained,
        train_loss_nats=points[-1].loss_nats,
        validation_loss_nats=loss_sum / tokens,
        losses=points,
        memory=memory.with_peaks(meter.phases),
        adapter_sha256=sha256_of_files(plan.adapter, ADAPTER_FILES),
        largest_batch=memory.largest.shape if memory.largest else None,
        largest_evaluation_batch=memory.evaluation[0].shape,
    )


def _run_trainer(
    plan: TrainingPlan,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    watch: TrainingWatch,
    device: Device,
    memory: BatchMemory,
) -> Trainer:
    samples = [
        tokenize_row(row, tokenizer, train_on_prompt=plan.train_on_prompt)
        for row in read_rows(plan.data / "train.jsonl")
    ]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = MeasuredTrainer(
            memory,
            model=model,
            args=training_arguments(plan, device, plan.checkpoints or Path(scratch)),
            train_dataset=samples,
            data_collator=Padding(_pad_token_id(tokenizer)),
            callbacks=[watch],
        )
        # The Trainer would print every log line itself.
        trainer.remove_callback(PrinterCallback)
        last = get_last_checkpoint(str(plan.checkpoints)) if _has_any(plan.checkpoints) else None
        trainer.train(resume_from_checkpoint=last)
    return trainer


def training_arguments(plan: TrainingPlan, device: Device, folder: Path) -> TrainingArguments:
    """Our settings in the Trainer's words."""
    train = plan.train
    precision = compute_precision(plan.quant, device).value
    steps_known = train.steps is not None
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=train.steps if steps_known else -1,
        num_train_epochs=1.0 if steps_known else train.epochs,
        per_device_train_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=train.batch_size // train.micro_batch_size,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        # A value below 1 is a share of all steps.
        warmup_steps=train.warmup_fraction,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_gradient_norm,
        gradient_checkpointing=train.gradient_checkpointing,
        optim="adamw_torch",
        seed=plan.seed,
        data_seed=plan.seed,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=device.kind == "cpu",
        logging_steps=train.log_every_steps,
        include_num_input_tokens_seen="non_padding",
        # The filter would hide a loss of NaN.
        logging_nan_inf_filter=False,
        save_strategy="steps" if plan.checkpoints else "no",
        save_steps=train.checkpoint_every_steps or 500,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.kind == "cuda",
    )


def _has_any(folder: Path | None) -> bool:
    return folder is not None and folder.is_dir() and any(folder.iterdir())


def _pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Any id will do: padded positions are masked and carry no label."""
    pad = tokenizer.pad_token_id
    return int(pad if pad is not None else tokenizer.eos_token_id)


def _refuse_divergence(model: nn.Module, watch: TrainingWatch) -> None:
    if watch.diverged_at is not None:
        raise Diverged(f"the loss was not finite at step {watch.diverged_at}")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise Diverged(f"{name} holds values that are not finite after training")


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimizer's state tensors (for AdamW two moments a parameter, and its step)."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return sum(
        value.numel() * value.element_size()
        for state in inner.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
