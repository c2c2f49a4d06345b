"""Plans of small trainings, and trainings of one trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import Trainer, TrainingArguments

from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, tokenize_row
from lorascope.files.layout import Layout
from lorascope.machine.devices import TORCH_DTYPES, Device
from lorascope.meters.batches import BatchMemory
from lorascope.objectives.completion import pad_samples
from lorascope.quantizers.loading import compute_precision
from lorascope.records import TrainingResult
from lorascope.training.log import Diverged
from lorascope.training.progress import Progress, StepReport, ValidationReport, unwatched
from lorascope.training.run import train_pack
from lorascope.training.trial_plan import PackPlan, TrialPlan
from lorascope.training.validation import Unsaved
from tests.devices import CPU as CPU
from tests.devices import DEVICE


def plan_for(project: Layout, config: Config, adapter: Path) -> PackPlan:
    """One trial of the small project."""
    return pack_plan(project, [config], [adapter])


def pack_plan(project: Layout, configs: Sequence[Config], adapters: Sequence[Path]) -> PackPlan:
    """Several trials of the small project, which share what the first one says."""
    first = configs[0]
    return PackPlan(
        base=project.quantized("small", first.quant.name),
        base_name="small",
        data=project.data("small", "toy"),
        checkpoints=None,
        quant=first.quant,
        attention=first.model.attention,
        evaluate_batch_size=8,
        trials=[
            TrialPlan.of(config, adapter) for config, adapter in zip(configs, adapters, strict=True)
        ],
    )


def bare_collator(items: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The collator of a bare Trainer: samples padded on the right."""
    ids, labels, mask = pad_samples(items)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def bare_losses(
    project: Layout,
    config: Config,
    model: PeftModel,
    folder: Path,
    optimizer: torch.optim.Optimizer | None = None,
    data: Path | None = None,
) -> list[float]:
    """Losses by step of what anyone would write with Trainer and PEFT, which trains `model`; by
    its own AdamW where there is no `optimizer`."""
    train, plan = config.train, plan_for(project, config, folder)
    tokenizer = load_tokenizer(plan.base)
    rows = [tokenize_row(row, tokenizer) for row in read_rows((data or plan.data) / "train.jsonl")]
    samples = [(torch.tensor(ids), torch.tensor(labels)) for ids, labels in rows]
    compute = TORCH_DTYPES[compute_precision(config.quant, DEVICE).value]
    arguments = TrainingArguments(
        str(folder), max_steps=train.steps or 0, learning_rate=plan.trials[0].train.learning_rate,
        per_device_train_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=train.batch_size // train.micro_batch_size,
        lr_scheduler_type=train.schedule, warmup_steps=train.warmup_fraction,
        weight_decay=train.weight_decay, max_grad_norm=train.max_gradient_norm,
        seed=config.seed, data_seed=config.seed, logging_steps=1, report_to="none",
        use_cpu=DEVICE.kind == "cpu",
        bf16=compute is torch.bfloat16, fp16=compute is torch.float16,
        disable_tqdm=True, save_strategy="no", remove_unused_columns=False,
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=samples,
        data_collator=bare_collator,
        optimizers=(optimizer, None),
    )
    trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def train_alone(
    plan: PackPlan,
    device: Device = DEVICE,
    progress: Progress = unwatched,
    memory: BatchMemory | None = None,
) -> TrainingResult:
    """The result of a pack of one; a divergence is raised."""
    (outcome,) = train_pack(plan, device, progress, memory)
    if isinstance(outcome, Diverged | Unsaved):
        raise outcome
    return outcome


class Interrupted(Exception):
    """Somebody who ends a training."""


def interrupted_at(step: int) -> Callable[[StepReport | ValidationReport], bool]:
    """Progress that ends the training after `step` steps, unsaved."""

    def follow(report: StepReport | ValidationReport) -> bool:
        if isinstance(report, StepReport) and report.step >= step:
            raise Interrupted
        return False

    return follow
