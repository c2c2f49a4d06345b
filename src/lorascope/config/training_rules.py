"""What the settings of mode, adapter and training must satisfy beyond their types."""

from __future__ import annotations

from lorascope.config import Storage, Targets
from lorascope.config.rule import ABOVE_ZERO, INFINITE, MAX_RANK, ONE_OR_MORE, Rule

SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)
"""transformers' schedulers that need no further settings."""
ADAPTER_RULES = [
    Rule(
        "quant.double_quantization",
        lambda c: not c.quant.double_quantization or c.quant.storage in (Storage.nf4, Storage.fp4),
        "only 4-bit storage has it",
        "Use storage nf4 or fp4, or turn it off.",
    ),
    Rule(
        "quant.int8_outlier_threshold",
        lambda c: 0 <= c.quant.int8_outlier_threshold < INFINITE,
        "must be 0 or more, and finite",
        "6.0 is the default, 0 keeps no outliers apart.",
    ),
    Rule(
        "lora.rank",
        lambda c: 1 <= c.lora.rank <= MAX_RANK,
        f"a rank must be a whole number from 1 to {MAX_RANK}",
        "Try 8 or 16.",
    ),
    Rule(
        "lora.alpha",
        lambda c: 0 < c.lora.alpha < INFINITE,
        ABOVE_ZERO,
        "Start with 16, or with the rank.",
    ),
    Rule("lora.dropout", lambda c: 0 <= c.lora.dropout < 1, "must lie in [0, 1)", "Try 0.05."),
    Rule(
        "lora.modules",
        lambda c: (c.lora.targets is Targets.modules) == bool(c.lora.modules),
        "a list of modules goes with targets=modules, and only with it",
        "Use lora=modules lora.modules=[q_proj,v_proj], or drop the list.",
    ),
]
TRAIN_RULES = [
    Rule(
        "train.steps",
        lambda c: (c.train.epochs is None) != (c.train.steps is None),
        "exactly one of train.steps and train.epochs says how long to train",
        "Set one, and the other to null.",
    ),
    Rule(
        "train.steps",
        lambda c: c.train.steps is None or c.train.steps >= 1,
        ONE_OR_MORE,
        "Set a whole number, or use train.epochs.",
    ),
    Rule(
        "train.epochs",
        lambda c: c.train.epochs is None or 0 < c.train.epochs < INFINITE,
        ABOVE_ZERO,
        "1 is a good start.",
    ),
    Rule(
        "train.learning_rate",
        lambda c: 0 < c.train.learning_rate < INFINITE,
        ABOVE_ZERO,
        "2e-4 is a good start for LoRA.",
    ),
    Rule("train.batch_size", lambda c: c.train.batch_size >= 1, ONE_OR_MORE, "16 is usual."),
    Rule(
        "train.micro_batch_size",
        lambda c: (
            c.train.micro_batch_size >= 1 and c.train.batch_size % c.train.micro_batch_size == 0
        ),
        "must be 1 or more and divide batch_size",
        "Make train.batch_size a multiple of it.",
    ),
    Rule(
        "train.warmup_fraction",
        lambda c: 0 <= c.train.warmup_fraction < 1,
        "must lie in [0, 1)",
        "Try 0.03.",
    ),
    Rule(
        "train.schedule",
        lambda c: c.train.schedule in SCHEDULES,
        "no such schedule",
        f"Choose one of {', '.join(SCHEDULES)}.",
    ),
    Rule(
        "train.max_gradient_norm",
        lambda c: 0 < c.train.max_gradient_norm < INFINITE,
        ABOVE_ZERO,
        "1.0 is usual.",
    ),
    Rule(
        "train.weight_decay",
        lambda c: 0 <= c.train.weight_decay < INFINITE,
        "must be 0 or more, and finite",
        "0 is usual.",
    ),
    Rule("train.log_every_steps", lambda c: c.train.log_every_steps >= 1, ONE_OR_MORE, "Try 10."),
    Rule(
        "train.checkpoint_every_steps",
        lambda c: c.train.checkpoint_every_steps >= 0,
        "is negative",
        "0 keeps no checkpoints.",
    ),
    Rule(
        "train.validate_every_steps",
        lambda c: c.train.validate_every_steps >= 0,
        "is negative",
        "0 validates at the end only.",
    ),
    Rule("train.patience", lambda c: c.train.patience >= 0, "is negative", "0 never stops early."),
    Rule(
        "train.patience",
        lambda c: c.train.patience == 0 or c.train.validate_every_steps > 0,
        "patience counts validations, and there are none while a trial is trained",
        "Set train.validate_every_steps, e.g. to 20, or train.patience=0.",
    ),
]
