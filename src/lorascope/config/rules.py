"""What a configuration must satisfy beyond its types, judged before anything expensive starts."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from functools import reduce

from lorascope.config import Config, Cost, DataKind, ModelKind, Precision
from lorascope.config.name_rules import NAME_RULES, SEED_RULES
from lorascope.config.rule import ABOVE_ZERO, INFINITE, MAX_RANK, ONE_OR_MORE, Rule, is_encodable
from lorascope.config.training_rules import ADAPTER_RULES, TRAIN_RULES
from lorascope.errors import ConfigError

ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
COMMIT_LENGTH = 40
MAX_THREADS = 4096
ZERO_OR_MORE = "must be 0 or more"


def validate(config: Config) -> None:
    """Raise ConfigError for the first value that no run could use."""
    _require_characters(config)
    for rule in RULES:
        if not rule.holds(config):
            value = reduce(getattr, rule.key.split("."), config)
            raise ConfigError(rule.key, value, rule.problem, rule.remedy)


def _require_characters(config: Config) -> None:
    """YAML can write half of a surrogate pair as \\ud800: no file name, record or digest can."""
    for group, values in asdict(config).items():
        for key, value in (values if isinstance(values, dict) else {"": values}).items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not is_encodable(text):
                    raise ConfigError(
                        f"{group}.{key}".rstrip("."), value,
                        "holds half of a surrogate pair, which is no character",
                        "Write the character itself instead of \\ud800 and its like.",
                    )  # fmt: skip


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def require_one_population(config: Config) -> None:
    """The tiny base and the biographies must be drawn from one seed: the rows' new people must be
    strangers to it."""
    tiny = config.model.kind is ModelKind.tiny
    met = tiny and config.data.kind is DataKind.biographies
    if met and config.data.seed != config.model.pretrain_seed:
        raise ConfigError(
            "data.seed", config.data.seed, "the tiny base was pre-trained on people of "
            f"model.pretrain_seed={config.model.pretrain_seed}, so the rows could contradict it",
            "Give both the same seed.",
        )  # fmt: skip


def _is_commit(revision: str | None) -> bool:
    digits = set("0123456789abcdef")
    return revision is not None and len(revision) == COMMIT_LENGTH and set(revision) <= digits


def _is_finite_above_zero(value: float | None) -> bool:
    """Or empty."""
    return value is None or 0 < value < INFINITE


NOT_PINNED = "not a commit hash of 40 hex digits, so the study could change under you"
COPY_HASH = "Copy the commit hash from its page on the hub."
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
    Rule(
        "data.max_dropped_fraction",
        lambda c: 0 <= c.data.max_dropped_fraction < 1,
        "must lie in [0, 1): it is a share of the rows",
        "0.05 is the default; 0 stops at the first row that is unfit.",
    ),
    Rule("data.date", lambda c: _is_day(c.data.date), "is no day", "Write it as 2024-07-26."),
    *(_rows_rule(split) for split in ("train", "validation", "test")),
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
    Rule(
        "merge.int8_min_agreement",
        lambda c: 0 < c.merge.int8_min_agreement <= 1,
        "must lie in (0, 1]",
        "0.9 is the default.",
    ),
    Rule(
        "merge.max_loss_gap_nats",
        lambda c: c.merge.max_loss_gap_nats >= 0,
        ZERO_OR_MORE,
        "0.02 is the default.",
    ),
    Rule(
        "merge.max_logit_difference",
        lambda c: c.merge.max_logit_difference >= 0,
        ZERO_OR_MORE,
        "1.0 is the default.",
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
        ABOVE_ZERO,
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
        lambda c: c.decide.cost is not Cost.money or c.decide.price_per_hour is not None,
        "decide.cost=money needs a price",
        "State what an hour of your machine costs.",
    ),
    Rule(
        "decide.price_per_hour",
        lambda c: _is_finite_above_zero(c.decide.price_per_hour),
        ABOVE_ZERO,
        "State what an hour of your machine costs.",
    ),
    Rule(
        "decide.power_watts",
        lambda c: c.decide.cost is not Cost.energy or c.decide.power_watts is not None,
        "decide.cost=energy needs a power",
        "State how many watts your machine draws while training.",
    ),
    Rule(
        "decide.power_watts",
        lambda c: _is_finite_above_zero(c.decide.power_watts),
        ABOVE_ZERO,
        "State how many watts your machine draws while training.",
    ),
]
RUNTIME_RULES = [
    Rule(
        "runtime.pack_trials",
        lambda c: c.runtime.pack_trials >= 1,
        ONE_OR_MORE,
        "1 trains each trial alone.",
    ),
    Rule(
        "runtime.threads",
        lambda c: 0 <= c.runtime.threads <= MAX_THREADS,
        f"must lie between 0 and {MAX_THREADS}",
        "0 leaves torch's choice.",
    ),
    Rule(
        "runtime.packs_at_once",
        lambda c: c.runtime.packs_at_once >= 0,
        ZERO_OR_MORE,
        "0 is one for each thread of a CPU.",
    ),
    Rule(
        "runtime.trial_timeout_seconds",
        lambda c: _is_finite_above_zero(c.runtime.trial_timeout_seconds),
        ABOVE_ZERO,
        "Leave it empty for no limit.",
    ),
    Rule(
        "runtime.memory_limit_gb",
        lambda c: _is_finite_above_zero(c.runtime.memory_limit_gb),
        ABOVE_ZERO,
        "Leave it empty for what the device has.",
    ),
]
RULES = [
    *NAME_RULES, *SEED_RULES, *MODEL_RULES, *DATA_RULES, *ADAPTER_RULES, *TRAIN_RULES,
    *RESULT_RULES, *DECIDE_RULES, *RUNTIME_RULES,
]  # fmt: skip
