"""What settings are called in axolotl, LLaMA-Factory, unsloth, transformers and PEFT, and here."""

from __future__ import annotations

from collections.abc import Mapping

HABITS: Mapping[str, str] = {
    "model_name_or_path": "model", "base_model": "model", "model_name": "model",
    "pretrained_model_name_or_path": "model", "attn_implementation": "model.attention",
    "dataset": "data", "datasets": "data", "dataset_name": "data", "dataset_path": "data",
    "val_size": "data.validation_fraction", "val_set_size": "data.validation_fraction",
    "test_size": "data.test_fraction", "cutoff_len": "data.max_tokens",
    "sequence_len": "data.max_tokens", "max_seq_length": "data.max_tokens",
    "max_seq_len": "data.max_tokens", "max_length": "data.max_tokens",
    "max_samples": "data.max_train_rows", "train_on_inputs": "data.train_on_prompt",
    "chat_template": "data.template",
    "load_in_4bit": "quant=nf4", "load_in_8bit": "quant=int8", "quantization_bit": "quant",
    "bnb_4bit_use_double_quant": "quant=nf4_dq", "fp16": "quant=fp16", "bf16": "quant=bf16",
    "r": "lora.rank", "lora_r": "lora.rank", "lora_rank": "lora.rank",
    "lora_alpha": "lora.alpha", "lora_dropout": "lora.dropout", "use_rslora": "lora.rslora",
    "use_dora": "lora.dora", "target_modules": "lora.modules",
    "lora_target": "lora.modules", "lora_target_modules": "lora.modules",
    "lora_target_linear": "lora=all_linear", "loraplus_lr_ratio": "lora.b_rate_ratio",
    "init_lora_weights": "lora.init",
    "lr": "train.learning_rate", "num_train_epochs": "train.epochs", "num_epochs": "train.epochs",
    "max_steps": "train.steps", "per_device_train_batch_size": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.batch_size", "lr_scheduler": "train.schedule",
    "lr_scheduler_type": "train.schedule", "warmup_ratio": "train.warmup_fraction",
    "warmup_steps": "train.warmup_fraction", "max_grad_norm": "train.max_gradient_norm",
    "logging_steps": "train.log_every_steps", "save_steps": "train.checkpoint_every_steps",
    "eval_steps": "train.validate_every_steps", "early_stopping_patience": "train.patience",
    "pref_beta": "train.beta", "dpo_beta": "train.beta",
    "per_device_eval_batch_size": "evaluate.batch_size",
    "eval_batch_size": "evaluate.batch_size", "random_state": "seed",
    "report_to": "runtime.tracking",
}  # fmt: skip
"""Their name -> the key here, or a choice of a group's file. Of one name in several programs the
meaning is the same. Steps there are a share here, and a batch is what one optimizer step takes."""


def called_here(word: str) -> str | None:
    """What is called `word` elsewhere, whatever section it was written in."""
    return HABITS.get(word.lower().replace("-", "_").rpartition(".")[2])
