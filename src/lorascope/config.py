"""The schema of conf/: one dataclass per group. Unknown keys and wrong types fail at composition.

Values that type checks cannot judge (a rank of 0, a negative learning rate) are judged by
`validate`, which every command calls before anything expensive starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from lorascope.errors import ConfigError

MAX_RANK = 512


class ModelKind(StrEnum):
    """Where a base model comes from."""

    tiny = "tiny"
    hub = "hub"
    local = "local"


class DataKind(StrEnum):
    """Where rows come from."""

    biographies = "biographies"
    hub = "hub"
    local = "local"


class Format(StrEnum):
    """How a source row is laid out."""

    prompt_completion = "prompt_completion"
    alpaca = "alpaca"
    chat = "chat"
    turns = "turns"
    source_target = "source_target"
    question_answer = "question_answer"
    rendered = "rendered"


class TemplateKind(StrEnum):
    """How a conversation becomes text."""

    plain = "plain"
    chat = "chat"
    llama2 = "llama2"


class Scoring(StrEnum):
    """What counts as right on an item, beside the completion loss that is always measured."""

    choices = "choices"
    answer = "answer"
    loss = "loss"


class Storage(StrEnum):
    """How the base's linear weights are stored."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"
    nf4 = "nf4"
    fp4 = "fp4"


class Precision(StrEnum):
    """A floating-point type, or the choice of the best one that the device has."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Targets(StrEnum):
    """Which linear layers get an adapter."""

    q_v = "q_v"
    attention = "attention"
    all_linear = "all_linear"
    modules = "modules"


class DeviceKind(StrEnum):
    """Which device to use."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass
class ModelConfig:
    """A base model."""

    name: str = "???"
    kind: ModelKind = ModelKind.local
    repository: str | None = None
    """Hub id, for kind=hub."""
    revision: str | None = None
    """Commit hash on the hub, for kind=hub: a branch name can move under a study."""
    path: str | None = None
    """Folder, for kind=local, relative to the project."""
    trust_remote_code: bool = False
    attention: str = "auto"
    """auto, sdpa, eager or flash_attention_2."""
    pretrain_steps: int = 0
    """For kind=tiny."""
    pretrain_seed: int = 0
    """For kind=tiny."""


@dataclass
class DataConfig:
    """A dataset: its source, layout, rendering, splits and what counts as right."""

    name: str = "???"
    kind: DataKind = DataKind.local
    format: Format = Format.prompt_completion
    template: TemplateKind = TemplateKind.plain
    system: str | None = None
    """System message given to every conversation that has none."""
    repository: str | None = None
    revision: str | None = None
    subset: str | None = None
    train: str | None = None
    """Local file (json, jsonl, csv, parquet, txt) or, for kind=hub, the split's name."""
    validation: str | None = None
    """As train; where empty, taken from train by stable hash."""
    test: str | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    max_tokens: int = 1024
    """Longer samples are dropped and counted, never cut inside an answer."""
    max_train_rows: int | None = None
    max_validation_rows: int | None = None
    max_test_rows: int | None = None
    scoring: Scoring = Scoring.loss
    answer_pattern: str | None = None
    """For scoring=answer: a regular expression with one group that finds the answer in a text."""
    train_on_prompt: bool = False
    """Train on prompt tokens too, instead of completions only."""
    seed: int = 0


@dataclass
class QuantConfig:
    """How the base is stored and computed."""

    name: str = "???"
    storage: Storage = Storage.float16
    double_quantization: bool = False
    compute: Precision = Precision.auto
    int8_outlier_threshold: float = 6.0


@dataclass
class LoraConfig:
    """The adapter."""

    targets: Targets = Targets.all_linear
    modules: list[str] = field(default_factory=list)
    """For targets=modules: names as in the model, e.g. [q_proj, down_proj]."""
    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    rslora: bool = False
    """Scale by alpha/sqrt(rank) instead of alpha/rank."""
    dora: bool = False


@dataclass
class TrainConfig:
    """How an adapter is trained."""

    name: str = "???"
    epochs: float | None = None
    """Passes over the training split; exactly one of epochs and steps is set."""
    steps: int | None = None
    batch_size: int = 16
    """Samples in one optimizer step."""
    micro_batch_size: int = 16
    """Samples in one forward pass; divides batch_size."""
    learning_rate: float = 2e-4
    schedule: str = "linear"
    """A transformers scheduler name: linear, cosine, constant, constant_with_warmup, ..."""
    warmup_fraction: float = 0.0
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    gradient_checkpointing: bool = False
    log_every_steps: int = 10
    checkpoint_every_steps: int = 0
    """0 keeps no checkpoints; otherwise an interrupted trial resumes from the last one."""


@dataclass
class EvaluateConfig:
    """How trials are scored."""

    batch_size: int = 64
    """One fixed size for all that is compared: log-likelihoods move with padding."""
    max_new_tokens: int = 16
    lm_eval_tasks: list[str] = field(default_factory=list)
    """Further lm-eval tasks by name; they need a network or a warm cache."""


@dataclass
class MergeConfig:
    """How the shipped adapter is merged, and how far the result may be off."""

    precision: Precision = Precision.float32
    verify_items: int = 64
    min_agreement: float = 0.98
    """Share of next-token predictions on completions that must be equal."""
    max_loss_gap_nats: float = 0.02
    """Largest allowed difference of mean completion loss."""
    max_logit_difference: float = 1.0


@dataclass
class RuntimeConfig:
    """Where and how to run: never part of a trial's identity."""

    device: DeviceKind = DeviceKind.auto
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    trial_timeout_seconds: float | None = None
    tracking: bool = True


@dataclass
class Config:
    """Everything that a stage may read."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    seed: int = 0
    ship: str = "auto"


def require(ok: bool, key: str, value: object, problem: str, remedy: str) -> None:
    """Raise ConfigError unless `ok`."""
    if not ok:
        raise ConfigError(key, value, problem, remedy)


def validate(config: Config) -> None:
    """Raise ConfigError for the first value that no run could use."""
    checks: list[Callable[[Config], None]] = [
        _validate_model,
        _validate_data,
        _validate_quant,
        _validate_lora,
        _validate_train,
        _validate_evaluate_and_merge,
    ]
    for check in checks:
        check(config)


def _validate_model(config: Config) -> None:
    model = config.model
    if model.kind is ModelKind.hub:
        require(
            bool(model.repository), "model.repository", model.repository,
            "kind=hub needs a hub id", "Set repository: owner/name in the model's file.",
        )
        revision = model.revision or ""
        pinned = len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)
        require(
            pinned, "model.revision", model.revision,
            "not a commit hash of 40 hex digits, so the study could change under you",
            "Copy the commit hash from the model's page on the hub.",
        )
    if model.kind is ModelKind.local:
        require(
            bool(model.path), "model.path", model.path,
            "kind=local needs a folder", "Set path: to a folder with config, weights, tokenizer.",
        )
    if model.kind is ModelKind.tiny:
        require(
            model.pretrain_steps > 0, "model.pretrain_steps", model.pretrain_steps,
            "kind=tiny is pre-trained here and needs steps", "Set it to 1 or more.",
        )
    known = ("auto", "sdpa", "eager", "flash_attention_2")
    require(
        model.attention in known, "model.attention", model.attention,
        "no such attention", f"Choose one of {', '.join(known)}.",
    )


def _validate_data(config: Config) -> None:
    data = config.data
    if data.kind is DataKind.hub:
        require(
            bool(data.repository) and bool(data.revision), "data.repository/revision",
            f"{data.repository}@{data.revision}", "kind=hub needs an id and a pinned revision",
            "Set both in the data file.",
        )
    if data.kind is not DataKind.biographies:
        require(
            bool(data.train), "data.train", data.train, "no training rows named",
            "Set train: to a file (kind=local) or a split's name (kind=hub).",
        )
    for key in ("validation_fraction", "test_fraction"):
        value = getattr(data, key)
        require(
            0 < value < 0.5, f"data.{key}", value, "a split's share must lie between 0 and 0.5",
            "0.1 is a good start.",
        )
    require(
        data.max_tokens >= 8, "data.max_tokens", data.max_tokens,
        "too short for a prompt and an answer", "Set it to the model's context or less.",
    )
    for key in ("max_train_rows", "max_validation_rows", "max_test_rows"):
        rows = getattr(data, key)
        require(
            rows is None or rows >= 1, f"data.{key}", rows, "must be 1 or more",
            "Leave it empty to keep all rows.",
        )


def _validate_quant(config: Config) -> None:
    quant = config.quant
    four_bit = quant.storage in (Storage.nf4, Storage.fp4)
    require(
        four_bit or not quant.double_quantization, "quant.double_quantization",
        quant.double_quantization, f"only 4-bit storage has it, not {quant.storage}",
        "Use storage nf4 or fp4, or turn it off.",
    )


def _validate_lora(config: Config) -> None:
    lora = config.lora
    require(
        1 <= lora.rank <= MAX_RANK, "lora.rank", lora.rank,
        f"a rank must be a whole number from 1 to {MAX_RANK}", "Try 8 or 16.",
    )
    require(
        0 < lora.alpha < float("inf"), "lora.alpha", lora.alpha, "must be greater than 0",
        "Start with 16, or with the rank.",
    )
    require(
        0 <= lora.dropout < 1, "lora.dropout", lora.dropout, "must lie in [0, 1)", "Try 0.05.",
    )
    listed = lora.targets is Targets.modules
    require(
        listed == bool(lora.modules), "lora.modules", lora.modules,
        "a list of modules goes with targets=modules, and only with it",
        "Use lora=modules lora.modules=[q_proj,v_proj], or drop the list.",
    )


def _validate_train(config: Config) -> None:
    train = config.train
    both = f"epochs={train.epochs} steps={train.steps}"
    require(
        (train.epochs is None) != (train.steps is None), "train.epochs/steps", both,
        "exactly one of them says how long to train", "Set one, and the other to null.",
    )
    amount = train.steps if train.steps is not None else train.epochs
    require(
        amount is not None and amount > 0, "train.epochs/steps", both, "must be greater than 0",
        "Set a positive number.",
    )
    require(
        0 < train.learning_rate < float("inf"), "train.learning_rate", train.learning_rate,
        "must be greater than 0", "2e-4 is a good start for LoRA.",
    )
    sizes = train.batch_size >= 1 and train.micro_batch_size >= 1
    require(
        sizes and train.batch_size % train.micro_batch_size == 0, "train.micro_batch_size",
        train.micro_batch_size, f"must divide batch_size={train.batch_size}",
        "Make batch_size a multiple of it.",
    )
    require(
        0 <= train.warmup_fraction < 1, "train.warmup_fraction", train.warmup_fraction,
        "must lie in [0, 1)", "Try 0.03.",
    )
    require(
        train.max_gradient_norm > 0, "train.max_gradient_norm", train.max_gradient_norm,
        "must be greater than 0", "1.0 is usual.",
    )
    require(
        train.weight_decay >= 0, "train.weight_decay", train.weight_decay,
        "must not be negative", "0 is usual for adapters.",
    )
    require(
        train.log_every_steps >= 1, "train.log_every_steps", train.log_every_steps,
        "must be 1 or more", "10 is usual.",
    )
    require(
        train.checkpoint_every_steps >= 0, "train.checkpoint_every_steps",
        train.checkpoint_every_steps, "must be 0 (off) or more", "0 for short trials.",
    )


def _validate_evaluate_and_merge(config: Config) -> None:
    evaluate, merge = config.evaluate, config.merge
    for key in ("batch_size", "max_new_tokens"):
        value = getattr(evaluate, key)
        require(value >= 1, f"evaluate.{key}", value, "must be 1 or more", "Use the default.")
    require(
        merge.precision is not Precision.auto, "merge.precision", merge.precision,
        "a merged model needs a definite type", "Use float32, bfloat16 or float16.",
    )
    require(
        merge.verify_items >= 1, "merge.verify_items", merge.verify_items, "must be 1 or more",
        "64 is usual.",
    )
    require(
        0 < merge.min_agreement <= 1, "merge.min_agreement", merge.min_agreement,
        "must lie in (0, 1]", "0.98 is the default.",
    )
