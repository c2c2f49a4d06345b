"""What a configuration must satisfy beyond its types, judged before anything expensive starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from lorascope.config import Config, Cost, DataKind, ModelKind, Precision, Storage, Targets
from lorascope.errors import ConfigError

MAX_RANK = 512
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
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
COMMIT_LENGTH = 40
INFINITE = float("inf")


@dataclass(frozen=True)
class Rule:
    """`holds` says whether the value under `key` can be used; if not, the rest says why."""

    key: str
    holds: Callable[[Config], bool]
    problem: str
    remedy: str


def validate(config: Config) -> None:
    """Raise ConfigError for the first value that no run could use."""
    for rule in RULES:
        if not rule.holds(config):
            value = reduce(getattr, rule.key.split("."), config)
            raise ConfigError(rule.key, value, rule.problem, rule.remedy)


def _is_commit(revision: str | None) -> bool:
    digits = set("0123456789abcdef")
    return revision is not None and len(revision) == COMMIT_LENGTH and set(revision) <= digits


NOT_PINNED = "not a commit hash of 40 hex digits, so the study could change under you"
COPY_HASH = "Copy the commit hash from its page on the hub."
ONE_OR_MORE = "must be 1 or more"
A_SHARE = "a split's share must lie between 0 and 0.5"


def _rows_rule(split: str) -> Rule:
    def holds(config: Config) -> bool:
        rows: int | None = getattr(config.data, f"max_{split}_rows")
        return rows is None or rows >= 1

    return Rule(f"data.max_{split}_rows", holds, ONE_OR_MORE, "Set it to null to keep all rows.")


MODEL_RULES = [
    Rule(
        "model.repository",
        lambda c: c.model.kind is not ModelKind.hub or bool(c.model.repository),
        "kind=hub needs a hub id",
        "Set repository: owner/name in the model's file.",
    ),
    Rule(
        "model.revision",
        lambda c: c.model.kind is not ModelKind.hub or _is_commit(c.model.revision),
        NOT_PINNED,
        COPY_HASH,
    ),
    Rule(
        "model.path",
        lambda c: c.model.kind is not ModelKind.local or bool(c.model.path),
        "kind=local needs a folder",
        "Set path: to a folder with config, weights and tokenizer.",
    ),
    Rule(
        "model.pretrain_steps",
        lambda c: c.model.kind is not ModelKind.tiny or c.model.pretrain_steps > 0,
        "kind=tiny is pre-trained here and needs steps",
        "Set it to 1 or more.",
    ),
    Rule(
        "model.attention",
        lambda c: c.model.attention in ATTENTIONS,
        "no such attention",
        f"Choose one of {', '.join(ATTENTIONS)}.",
    ),
]
DATA_RULES = [
    Rule(
        "data.repository",
        lambda c: c.data.kind is not DataKind.hub or bool(c.data.repository),
        "kind=hub needs a hub id",
        "Set repository: owner/name in the data's file.",
    ),
    Rule(
        "data.revision",
        lambda c: c.data.kind is not DataKind.hub or _is_commit(c.data.revision),
        NOT_PINNED,
        COPY_HASH,
    ),
    Rule(
        "data.train",
        lambda c: c.data.kind is DataKind.biographies or bool(c.data.train),
        "no training rows named",
        "Set train: to a file (kind=local) or a split's name (kind=hub).",
    ),
    Rule(
        "data.validation_fraction",
        lambda c: 0 < c.data.validation_fraction < 0.5,
        A_SHARE,
        "0.1 is a good start.",
    ),
    Rule(
        "data.test_fraction",
        lambda c: 0 < c.data.test_fraction < 0.5,
        A_SHARE,
        "0.1 is a good start.",
    ),
    Rule(
        "data.max_tokens",
        lambda c: c.data.max_tokens >= 8,
        "too short for a prompt and an answer",
        "Set it to the model's context or less.",
    ),
    *(_rows_rule(split) for split in ("train", "validation", "test")),
]
ADAPTER_RULES = [
    Rule(
        "quant.double_quantization",
        lambda c: not c.quant.double_quantization or c.quant.storage in (Storage.nf4, Storage.fp4),
        "only 4-bit storage has it",
        "Use storage nf4 or fp4, or turn it off.",
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
        "must be greater than 0 and finite",
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
        "must be greater than 0",
        "1 is a good start.",
    ),
    Rule(
        "train.learning_rate",
        lambda c: 0 < c.train.learning_rate < INFINITE,
        "must be greater than 0 and finite",
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
        lambda c: c.train.max_gradient_norm > 0,
        "must be greater than 0",
        "1.0 is usual.",
    ),
    Rule("train.weight_decay", lambda c: c.train.weight_decay >= 0, "is negative", "0 is usual."),
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
RESULT_RULES = [
    Rule("evaluate.batch_size", lambda c: c.evaluate.batch_size >= 1, ONE_OR_MORE, "Try 64."),
    Rule(
        "evaluate.max_new_tokens", lambda c: c.evaluate.max_new_tokens >= 1, ONE_OR_MORE, "Try 16."
    ),
    Rule(
        "merge.precision",
        lambda c: c.merge.precision is not Precision.auto,
        "a merged model needs a definite type",
        "Use float32, bfloat16 or float16.",
    ),
    Rule("merge.verify_items", lambda c: c.merge.verify_items >= 1, ONE_OR_MORE, "Try 64."),
    Rule(
        "merge.min_agreement",
        lambda c: 0 < c.merge.min_agreement <= 1,
        "must lie in (0, 1]",
        "0.98 is the default.",
    ),
]
DECIDE_RULES = [
    Rule(
        "decide.margin_accuracy",
        lambda c: 0 < c.decide.margin_accuracy < 1,
        "must lie between 0 and 1: it is a share, not points",
        "0.05 lets a cheaper configuration lose up to 5 points.",
    ),
    Rule(
        "decide.margin_loss_nats",
        lambda c: 0 < c.decide.margin_loss_nats < INFINITE,
        "must be greater than 0 and finite",
        "Try 0.05.",
    ),
    Rule(
        "decide.seed_spread_points",
        lambda c: c.decide.seed_spread_points is None or 0 < c.decide.seed_spread_points < 50,
        "must lie between 0 and 50: points of accuracy, a standard deviation",
        "2 says that two seeds of one configuration often differ by 3 points; empty is unknown.",
    ),
    Rule(
        "decide.seed_spread_nats",
        lambda c: c.decide.seed_spread_nats is None or 0 < c.decide.seed_spread_nats < INFINITE,
        "must be greater than 0 and finite",
        "0.01 says that two seeds of one configuration often differ by 0.014; empty is unknown.",
    ),
    Rule(
        "decide.reference_rank",
        lambda c: c.decide.reference_rank is None or 1 <= c.decide.reference_rank <= MAX_RANK,
        f"must lie between 1 and {MAX_RANK}",
        "Leave it empty for the rank that validates best.",
    ),
    Rule(
        "decide.price_per_hour",
        lambda c: c.decide.cost is not Cost.money or (c.decide.price_per_hour or 0) > 0,
        "decide.cost=money needs a price",
        "State what an hour of your machine costs.",
    ),
    Rule(
        "decide.power_watts",
        lambda c: c.decide.cost is not Cost.energy or (c.decide.power_watts or 0) > 0,
        "decide.cost=energy needs a power",
        "State how many watts your machine draws while training.",
    ),
    Rule(
        "runtime.pack_trials",
        lambda c: c.runtime.pack_trials >= 1,
        "must be 1 or more",
        "1 trains each trial alone.",
    ),
    Rule(
        "runtime.memory_limit_gb",
        lambda c: c.runtime.memory_limit_gb is None or c.runtime.memory_limit_gb > 0,
        "must be greater than 0",
        "Leave it empty for what the device has.",
    ),
]
RULES = [*MODEL_RULES, *DATA_RULES, *ADAPTER_RULES, *TRAIN_RULES, *RESULT_RULES, *DECIDE_RULES]
