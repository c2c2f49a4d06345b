"""The schema of conf/: one dataclass per group. Unknown keys and wrong types fail at composition.

Values that type checks cannot judge (a rank of 0, a negative learning rate) are judged by
`config.rules.validate`, which every command calls before anything expensive starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lorascope.config.choices import (
    Cost,
    DataKind,
    DeviceKind,
    Format,
    ModelKind,
    Precision,
    Scoring,
    Storage,
    Targets,
    TemplateKind,
)


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
    known_config: str | None = None
    """Name of a public config.json that comes with lorascope: `count` and `plan` then need no
    download."""
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
    date: str = "2024-07-26"
    """Today, for chat templates that write the date into each prompt (YYYY-MM-DD): a fixed one, so
    that the same rows come out on every day."""
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
    max_dropped_fraction: float = 0.05
    """Share of a source's rows that may be unfit to train on (empty, malformed): these are left out
    and listed. More are an error, and 0 allows none."""
    max_train_rows: int | None = None
    max_validation_rows: int | None = None
    max_test_rows: int | None = None
    scoring: Scoring = Scoring.loss
    answer_pattern: str | None = None
    """For scoring=answer: a regular expression with one group that finds the answer in a text."""
    train_on_prompt: bool = False
    """Train on prompt tokens too, instead of completions only."""
    cluster: str | None = None
    """Column whose equal values mark rows that are not independent (one person, one document):
    intervals then treat them as one draw."""
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
    """A trial that was killed resumes from the last; 0 keeps none. Ctrl-C leaves one anyway."""
    validate_every_steps: int = 0
    """Steps between two validations on the whole validation split; 0 validates at the end only."""
    patience: int = 0
    """Validations in a row without a lower loss after which a trial stops; what is saved is then
    its best validated step. 0 never stops, and saves the last step."""


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
    int8_min_agreement: float = 0.9
    """The same share against INT8 inference, which rounds activations and a merged model does not;
    the limits above then hold against the adapter on the weights that INT8 stands for."""


@dataclass
class DecideConfig:
    """What is good enough to ship, and what counts as cheap."""

    name: str = "???"
    reference_quant: str = "fp16"
    """The mode that others are held against; where the study lacks it, its first mode."""
    reference_rank: int | None = None
    """None takes the rank that validates best in the reference mode."""
    margin_accuracy: float = 0.05
    """Largest loss of accuracy against the reference that is acceptable, as a share."""
    margin_loss_nats: float = 0.05
    """The same for data that are scored by loss alone: nats a completion token."""
    seed_spread_points: float | None = None
    """How much one configuration's accuracy varies from seed to seed, as a standard deviation in
    points, where you know it from other studies: it stands in where this study has too few seeds to
    show it. None: with one seed the spread is unknown and in no interval."""
    seed_spread_nats: float | None = None
    """The same for data that are scored by loss alone."""
    cost: Cost = Cost.serving_bytes
    price_per_hour: float | None = None
    """For cost=money, in any currency; shown as it is."""
    power_watts: float | None = None
    """For cost=energy: what the machine draws while training."""


@dataclass
class RuntimeConfig:
    """Where and how to run: never part of a trial's identity."""

    device: DeviceKind = DeviceKind.auto
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    trial_timeout_seconds: float | None = None
    """Of a trial alone; a pack may take as many times as long as it has trials."""
    pack_trials: int = 32
    """The most trials that are trained at once; 1 trains each alone. What memory cannot hold is
    split."""
    packs_at_once: int = 0
    """The most packs that are trained side by side; 0 is one for each thread of a CPU, and one on
    CUDA, where it is always one."""
    memory_limit_gb: float | None = None
    """Trials predicted to need more are refused, as a record; None takes what the device has."""
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
    decide: DecideConfig = field(default_factory=DecideConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    seed: int = 0
    ship: str = "auto"
