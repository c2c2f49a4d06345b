"""Baseline B0: one LoRA training with transformers' Trainer, PEFT and bitsandbytes, nothing else.

What a competent user writes for one trial, tuned: no tracking, no report, no checkpoints, no
progress bar. It knows nothing of lorascope but the files it reads: a base that was stored in one
mode (8 and 4 bits are loaded as they lie there), and rows of JSON with their segments.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

# No look-ups on the hub, and no bars: both would only make the baseline slower.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch
from bare_base import compute_dtype, load_base
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

IGNORED_LABEL = -100


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or other words in its place."""
    parser = argparse.ArgumentParser(description="Train one LoRA adapter.")
    parser.add_argument("--base", type=Path, required=True, help="folder of the stored base")
    parser.add_argument("--data", type=Path, required=True, help="train.jsonl with segments")
    parser.add_argument("--output", type=Path, required=True, help="folder for the adapter")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8, help="samples a step")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compute", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    return parser.parse_args(words)


def main() -> None:
    """Train, save, print the mean loss."""
    given = arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    trainer = trainer_of(given)
    result = trainer.train()
    trainer.model.save_pretrained(given.output, save_embedding_layers=False)
    print(f"loss {result.training_loss:.4f}")


def trainer_of(given: argparse.Namespace) -> Trainer:
    """Base, adapter and rows in a Trainer."""
    tokenizer = AutoTokenizer.from_pretrained(given.base)
    with given.data.open(encoding="utf-8") as lines:
        samples = [encode(json.loads(line)["segments"], tokenizer) for line in lines]
    dtype = compute_dtype(given.base) if given.compute == "auto" else getattr(torch, given.compute)
    trainer = Trainer(
        model=with_adapter(load_base(given.base, dtype), given),
        args=training_arguments(given, dtype),
        train_dataset=samples,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED_LABEL),
    )
    # It would print a line of its own where there is no bar.
    trainer.remove_callback(PrinterCallback)
    return trainer


def with_adapter(model: Any, given: argparse.Namespace) -> Any:
    """The base with a new adapter on all linear layers."""
    torch.manual_seed(given.seed)
    lora = LoraConfig(
        r=given.rank,
        lora_alpha=given.alpha,
        target_modules="all-linear",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def training_arguments(given: argparse.Namespace, dtype: torch.dtype) -> TrainingArguments:
    """A linear schedule without warm-up, AdamW without decay, gradients clipped at 1."""
    return TrainingArguments(
        output_dir=str(given.output),
        max_steps=given.steps,
        per_device_train_batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=given.seed,
        data_seed=given.seed,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=not torch.cuda.is_available(),
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def encode(segments: list[dict[str, Any]], tokenizer: Any) -> dict[str, list[int]]:
    """Ids and labels of one row: a token is trained if it starts in a trained segment."""
    text = "".join(segment["text"] for segment in segments)
    trained = [segment["trained"] for segment in segments for _ in segment["text"]]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    labels = [
        token if trained[start] else IGNORED_LABEL
        for token, (start, _) in zip(ids, encoded["offset_mapping"], strict=True)
    ]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


if __name__ == "__main__":
    main()
