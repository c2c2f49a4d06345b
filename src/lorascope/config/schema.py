"""The schema of conf/: one dataclass a group. Unknown keys and wrong types fail at composition.

A value that its type does not judge (a rank of 0, a negative learning rate) has a bound at its
field. `config.rules.validate` judges bounds and rules before anything expensive starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lorascope.config.adapter import AdapterConfig
from lorascope.config.bounds import (
    ABOVE_ZERO,
    BELOW_ONE,
    BOUND,
    FINITE,
    ONE_OR_MORE,
    SEED,
    UP_TO_ONE,
    ZERO_OR_MORE,
    Bound,
    between,
    bounded,
    named,
    one_of,
)
from lorascope.config.choices import (
    APART,
    DeviceKind,
    Precision,
    Search,
    Storage,
)
from lorascope.config.data import DataConfig
from lorascope.config.decide import DecideConfig
from lorascope.config.engine import EngineConfig
from lorascope.config.model import ModelConfig
from lorascope.config.objectives import OWN_SETTINGS
from lorascope.config.quant import A_ROW, GROUP_SIZE, ON_GRID, QuantConfig

SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "polynomial",
    "constant", "constant_with_warmup", "inverse_sqrt",
)  # fmt: skip
"""transformers' schedulers that need no further settings."""
MAX_THREADS = 4096
MAX_SHARDS = 64


@dataclass
class TrainConfig:
    """The training of an adapter."""

    name: str = named("train")
    epochs: float | None = bounded(None, ABOVE_ZERO, "1 is a good start.")
    """Passes over the training split; exactly one of epochs and steps is set."""
    steps: int | None = bounded(None, ONE_OR_MORE, "Set a whole number, or use train.epochs.")
    batch_size: int = bounded(16, ONE_OR_MORE, "16 is usual.")
    """Samples in one optimizer step."""
    micro_batch_size: int = 16
    """Samples in one forward pass; divides batch_size."""
    learning_rate: float = bounded(2e-4, ABOVE_ZERO, "2e-4 is a good start for LoRA.")
    layer_rate_decay: float = bounded(1.0, UP_TO_ONE, "Try 0.9; 1 is one rate for all layers.")
    """What a layer's learning rate is times that of the layer above it; the last layer has
    learning_rate (Howard and Ruder 2018, arXiv 1801.06146)."""
    schedule: str = bounded("linear", one_of("schedule", SCHEDULES))
    warmup_fraction: float = bounded(0.0, BELOW_ONE, "Try 0.03.")
    weight_decay: float = bounded(0.0, FINITE, "0 is usual.")
    max_gradient_norm: float = bounded(1.0, ABOVE_ZERO, "1.0 is usual.")
    gradient_checkpointing: bool = False
    layer_drop: float = bounded(0.0, BELOW_ONE, "Try 0.1; 0 drops none.")
    """Chance that a training step passes over a decoder layer, drawn anew for each layer and
    micro-batch (Fan et al. 2019, arXiv 1909.11556)."""
    objective: str = bounded("completion", one_of("objective", tuple(OWN_SETTINGS)))
    """What training lowers."""
    beta: float = bounded(0.1, ABOVE_ZERO, "0.1 is usual.")
    """Of dpo and ipo, how dear it is to leave the reference: a larger one stays closer. Of orpo,
    the weight of the odds ratio beside the loss of the chosen reply. Of simpo, what a nat a token
    is worth: 2.0 is usual there."""
    label_smoothing: float = bounded(
        0.0,
        Bound(lambda share: 0 <= share < 0.5, "must lie in [0, 0.5): half are told wrong at 0.5"),
        "Try 0.1; 0 trusts all pairs.",
    )
    """Share of pairs that dpo and simpo take to be the wrong way round (Mitchell 2023, conservative
    DPO)."""
    target_margin: float = bounded(0.5, FINITE, "A quarter to a half of train.beta is usual.")
    """Of simpo, by how much the chosen reply's reward should exceed the rejected one's (gamma)."""
    reference_free: bool = False
    """Whether dpo and ipo hold the replies against nothing, as if the reference found all alike."""
    qat: Storage | None = field(default=None, metadata={BOUND: ON_GRID})
    """The storage that the merged model is trained for: in each forward pass the sum of base and
    adapter is rounded as it will be when it is stored so. None trains what is not rounded."""
    qat_group_size: int | None = bounded(None, GROUP_SIZE, A_ROW)
    """The group_size of that storage."""
    log_every_steps: int = bounded(10, ONE_OR_MORE, "Try 10.")
    checkpoint_every_steps: int = bounded(0, ZERO_OR_MORE, "0 keeps no checkpoints.")
    """Steps between two checkpoints: a trial that was killed resumes from the last one. Ctrl-C
    leaves a checkpoint at 0 too."""
    validate_every_steps: int = bounded(0, ZERO_OR_MORE, "0 validates at the end only.")
    """Steps between two validations on the whole validation split; 0 validates at the end only."""
    patience: int = bounded(0, ZERO_OR_MORE, "0 never stops early.")
    """Validations in a row without a lower loss after which a trial stops; what is saved is then
    its best validated step. 0 never stops, and saves the last step."""


@dataclass
class EvaluateConfig:
    """The scoring of trials."""

    batch_size: int = bounded(64, ONE_OR_MORE, "Try 64.")
    """One fixed size for all that is compared: log-likelihoods move with padding. Samples of more
    than 256 tokens, and large vocabularies, are scored fewer at once."""
    max_new_tokens: int = bounded(16, ONE_OR_MORE, "Try 16.")
    forgetting: str | None = None
    """A file of conf/data with rows of the base's own domain, on which the bare base and every
    trial are scored by loss: its test split where it names one, else all of it."""
    lm_eval_tasks: list[str] = field(default_factory=list)
    """Further lm-eval tasks by name; they need a network or a warm cache."""
    examples: int = bounded(0, ZERO_OR_MORE, "0 keeps none; 4 is a good start.")
    """Test prompts to which the bare base and the leading trials of a mode write an answer that is
    kept. No score depends on them, nor any field whose name begins with example."""
    example_trials: int = bounded(2, ONE_OR_MORE, "2 is the default.")
    """The most configurations of a mode whose answers are kept: those that validate best."""
    example_tokens: int = bounded(64, ONE_OR_MORE, "64 is a good start.")
    """Longest answer that is kept."""
    example_temperature: float = bounded(0.0, FINITE, "0 takes the likeliest token each time.")
    """0 takes the likeliest token each time; more draws tokens, the same ones each time."""


EXAMPLE_FIELDS = ("examples", "example_trials", "example_tokens", "example_temperature")
"""Of EvaluateConfig: what is kept for people to read beside the scores, and decides none."""


@dataclass
class MergeConfig:
    """The merge of the shipped adapter, and the largest differences allowed after it."""

    precision: Precision = Precision.float32
    verify_items: int = bounded(64, ONE_OR_MORE, "Try 64.")
    min_agreement: float = bounded(0.98, UP_TO_ONE, "0.98 is the default.")
    """Share of next-token predictions on completions that must be equal."""
    max_loss_gap_nats: float = bounded(0.02, ZERO_OR_MORE, "0.02 is the default.")
    """Largest allowed difference of mean completion loss."""
    max_logit_difference: float = bounded(1.0, ZERO_OR_MORE, "1.0 is the default.")
    int8_min_agreement: float = bounded(0.9, UP_TO_ONE, "0.9 is the default.")
    """The same share against INT8 inference, which rounds activations, as no merged model does. The
    limits above then hold against the adapter on the dequantized base."""


@dataclass
class RuntimeConfig:
    """Where and how to run: no part of a trial's identity."""

    device: DeviceKind = DeviceKind.auto
    threads: int = bounded(0, between(0, MAX_THREADS), "0 leaves torch's choice.")
    """CPU threads; 0 leaves torch's choice."""
    shard: int = bounded(1, between(1, MAX_SHARDS), "1 has the whole base on one device.")
    """Devices that divide a base of plain numbers, and each batch: for one too large for a single
    one. Losses are equal but for rounding."""
    place: int = bounded(1, between(1, MAX_SHARDS), "1 has the whole base on one device.")
    """CUDA devices over which the decoder's layers are placed, one after the other: for a base of
    any mode that is too large for a single one. Numbers are those of one device."""
    trial_timeout_seconds: float | None = bounded(None, ABOVE_ZERO, "Leave it empty for no limit.")
    """Limit for one trial; a pack may take as many times as long as it has trials."""
    pack_trials: int = bounded(32, ONE_OR_MORE, "1 trains each trial alone.")
    """The most trials that are trained at once; 1 trains each alone. What memory cannot hold is
    split."""
    packs_at_once: int = bounded(0, ZERO_OR_MORE, "0 is one for each thread of a CPU.")
    """The most packs that are trained side by side; 0 is one for each thread of a CPU, and one on
    CUDA, where it is always one."""
    memory_limit_gb: float | None = bounded(
        None, ABOVE_ZERO, "Leave it empty for what the device has."
    )
    """Trials predicted to need more are refused, as a record; None takes what the device has."""
    deterministic: bool = False
    """Hold torch to algorithms that give the same bits each time, where it has them; slower. For
    CUDA: on a CPU the same settings give the same bits anyway."""
    tracking: bool = True
    live_seconds: float = bounded(5.0, ZERO_OR_MORE, "0 sends nothing before a pack has ended.")
    """Between two batches of steps that MLflow gets while packs train; 0 sends none."""

    @property
    def is_live(self) -> bool:
        """Whether anybody hears of steps while packs train."""
        return self.tracking and self.live_seconds > 0


@dataclass
class Config:
    """Everything that a stage may read."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """Settings of the kind that `adapter=` names; on the command line its section has its name."""
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    decide: DecideConfig = field(default_factory=DecideConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    seed: int = bounded(0, SEED)
    serve: QuantConfig | None = None
    """The mode that the trial is merged and stored in, loaded again from disk, and scored; None
    scores the adapter apart on its base. On the command line it is a file of conf/quant, or
    apart. One training may have many forms: no part of a trial's identity."""
    forgetting: DataConfig | None = None
    """The data that `evaluate.forgetting` names."""
    search: Search = Search.grid
    ship: str = "auto"

    @property
    def form(self) -> str:
        """The name of the form that the trial is served in."""
        return APART if self.serve is None else self.serve.name


def one_form(configs: Sequence[Config]) -> list[Config]:
    """The points of a grid as trainings: those that differ by their served form alone are one."""
    if all(config.serve is None for config in configs):
        return list(configs)
    return list({repr(one): one for one in (replace(c, serve=None) for c in configs)}.values())
