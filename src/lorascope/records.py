"""The typed results that stages write beside their outputs: the truth that all else mirrors.

Units stand in the names: bytes, seconds, nats, tokens. None means unknown: blank in tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from lorascope.config import DecideConfig

RECORD_FORMAT = 1


class Status(StrEnum):
    """How a trial ended. Everything but `completed` carries a reason."""

    completed = "completed"
    diverged = "diverged"
    out_of_memory = "out_of_memory"
    killed = "killed"
    timeout = "timeout"
    refused = "refused"


@dataclass(frozen=True)
class Provenance:
    """What a result was made with."""

    git_commit: str | None
    git_dirty: bool | None
    dvc_lock_sha256: str | None
    versions: dict[str, str]
    python: str
    platform: str
    device: str
    """Readable device name, e.g. 'cpu: Intel Xeon' or 'cuda: NVIDIA H200'."""
    threads: int
    created_utc: str


@dataclass(frozen=True)
class SplitCard:
    """One split of a prepared dataset."""

    rows: int
    sha256: str
    tokens: int
    trained_tokens: int
    length_percentiles_tokens: dict[str, int]
    """Keys p0, p50, p90, p99, p100."""
    eos_trained_share: float
    unknown_token_share: float


@dataclass(frozen=True)
class DataCard:
    """What prepare-data made."""

    name: str
    model: str
    source: str
    template: str
    template_sha256: str
    tokenizer_sha256: str
    splits: dict[str, SplitCard]
    """Keys train, validation, test."""
    rows_read: int
    dropped_rows: dict[str, int]
    """Reason -> rows, e.g. 'longer than 512 tokens', 'duplicate'."""
    scoring: str
    answer_pattern: str | None
    max_tokens: int
    content_sha256: str
    """Digest over the three split files and what scoring needs: the dataset's identity."""
    warnings: list[str]
    provenance: Provenance
    format: int = RECORD_FORMAT


@dataclass(frozen=True)
class LinearShape:
    """One matrix that can get an adapter."""

    name: str
    """Full dotted name in the model."""
    kind: str
    """Last part of the name, e.g. q_proj."""
    in_features: int
    out_features: int


@dataclass(frozen=True)
class BaseRecord:
    """What prepare-base made."""

    model: str
    source: str
    architecture: str
    parameters: int
    vocabulary: int
    context_tokens: int
    tied_head: bool
    linear_shapes: list[LinearShape]
    content_sha256: str
    """Digest of config, weights and tokenizer files: the base's identity."""
    seconds: float
    pretraining: dict[str, float] | None
    """For a base pre-trained here: steps, loss_nats, recall."""
    provenance: Provenance
    format: int = RECORD_FORMAT


@dataclass(frozen=True)
class LayerError:
    """How far one quantized layer is from full precision."""

    name: str
    relative_rmse: float
    """sqrt(mean((w - q)^2) / mean(w^2))"""
    bits_per_parameter: float


@dataclass(frozen=True)
class FootprintRecord:
    """What quantize-base made: the stored base in one mode."""

    model: str
    quant: str
    storage: str
    base_sha256: str
    content_sha256: str
    quantized_parameters: int
    quantized_weight_bytes: int
    quantization_constant_bytes: int
    unquantized_bytes: int
    total_bytes: int
    bits_per_quantized_parameter: float | None
    """(weights + constants) x 8 / parameters of the linear layers in this mode's storage."""
    layers: list[LayerError]
    seconds: float
    provenance: Provenance
    format: int = RECORD_FORMAT
    double_quantization: bool | None = None
    """Whether the constants are quantized too: with `storage` it decides the expected bits."""


@dataclass(frozen=True)
class PhaseMemory:
    """Memory of one phase (load, train, evaluate) of a trial."""

    resident_growth_bytes: int | None
    """CPU: growth of the process's resident peak over the phase's child process at its start."""
    allocated_peak_bytes: int | None
    """CUDA: peak of allocated bytes since the phase began."""
    reserved_peak_bytes: int | None
    """CUDA: peak of reserved bytes since the phase began."""
    tracked_peak_bytes: int | None = None
    """Peak of the bytes of all live tensors, weights included, as seen operation by operation."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a trial needs, predicted from its configuration alone: no weights, no device."""

    device: str
    """Kind of device that it is predicted for: cpu or cuda."""
    micro_batch_size: int
    tokens: int
    """Padded tokens a sample."""
    base_bytes: int
    """Weights, quantization constants and buffers in memory, in the types that compute."""
    constant_bytes: int
    """Quantization constants alone; part of base_bytes."""
    adapter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    """Saved for the backward pass at the end of the forward pass, logits apart."""
    logits_bytes: int
    """Logits, their copies and gradient where they peak together."""
    dequantization_bytes: int
    """Largest temporary copy of a quantized weight."""
    peak_bytes: dict[str, int]
    """Keys load, train, evaluate, merge."""
    seconds: float
    """That the prediction took."""


@dataclass(frozen=True)
class LossPoint:
    """One logged training loss: the mean over the steps since the point before, or a resume."""

    step: int
    loss_nats: float
    learning_rate: float
    gradient_norm: float | None


@dataclass(frozen=True)
class TrialKey:
    """What a trial is, for people and joins. The identity hash covers more than this."""

    model: str
    data: str
    quant: str
    targets: str
    rank: int
    alpha: float
    rslora: bool
    dora: bool
    seed: int


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training measured; None in a record whose trial did not finish."""

    trainable_parameters: int
    total_parameters: int
    """Base and adapter, packed weights counted by what they stand for, tied ones once."""
    trainable_percent: float
    """100 x trainable / total."""
    adapter_bytes: int
    optimizer_bytes: int
    model_bytes: int
    """Exact bytes of the base's parameters, buffers and quantization constants in memory."""
    compute_dtype: str
    attention: str
    steps: int
    resumed_at_step: int
    """0 for a training in one piece; else seconds and tokens a second are those since that step."""
    processed_tokens: int
    """Tokens that went through the model in all steps, padding apart."""
    tokens_per_second: float
    load_seconds: float
    train_seconds: float
    evaluate_seconds: float
    train_loss_nats: float
    """Mean loss of the last logged interval."""
    validation_loss_nats: float
    """Mean completion loss a token on the validation split."""
    losses: list[LossPoint]
    memory: dict[str, PhaseMemory]
    """Keys load, train, evaluate."""
    adapter_sha256: str
    largest_batch: tuple[int, int] | None = None
    """(samples, padded tokens a sample) of the largest micro-batch that was trained."""
    largest_evaluation_batch: tuple[int, int] | None = None
    """The same of the validation loss."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial of train-lora."""

    trial: str
    """Folder name: readable part plus short hash."""
    identity: str
    """Full hash over settings, base, data, seed and code."""
    key: TrialKey
    settings: dict[str, object]
    """All that entered the identity."""
    status: Status
    reason: str | None
    last_lines: list[str]
    result: TrainingResult | None
    tracking: str
    """'published', 'off', or why the store could not be reached."""
    provenance: Provenance
    format: int = RECORD_FORMAT
    plan: MemoryPlan | None = None
    """Predicted for the batches that were trained; before the run for a refused trial."""
    tracking_run: str | None = None
    """The tracking store's id of this trial's run."""


@dataclass(frozen=True)
class ItemResult:
    """One scored item, for item-by-item comparison."""

    item: str
    """Hash of the row."""
    prompt_sha256: str
    target_sha256: str
    correct: bool | None
    loss_nats: float
    """Summed over the completion's tokens."""
    tokens: int
    cluster: str | None = None
    """Hash of what this item shares with others (a person, a document); None where it is alone."""


@dataclass(frozen=True)
class SplitScore:
    """Scores on one split."""

    items: int
    accuracy: float | None
    """Share right; None where rows cannot be right or wrong."""
    accuracy_standard_error: float | None
    completion_loss_nats: float
    """Mean a token, over all completion tokens of the split."""


@dataclass(frozen=True)
class EvaluationRecord:
    """What evaluate made for one trial, or for the bare base (trial=None)."""

    name: str
    """The trial's folder name, or 'base'."""
    identity: str
    quant: str
    trial_identity: str | None
    key: TrialKey | None
    scoring: str
    batch_size: int
    splits: dict[str, SplitScore]
    """Keys validation, test."""
    lm_eval_metrics: dict[str, float]
    """Further lm-eval tasks: 'task/metric' -> value."""
    items_sha256: dict[str, str]
    seconds: float
    provenance: Provenance
    format: int = RECORD_FORMAT
    distributions_sha256: str | None = None
    """Of the file with next-token distributions on the test split."""


@dataclass(frozen=True)
class MergeRecord:
    """What merge made and how it was verified."""

    trial: str
    quant: str
    precision: str
    chosen_by: str
    """'auto: ...' with the rule and score, or 'named in ship'."""
    validation_score: float | None
    items: int
    largest_logit_difference: float
    prediction_agreement: float
    adapter_loss_nats: float
    merged_loss_nats: float
    untied_head: bool
    total_bytes: int
    content_sha256: str
    passed: bool
    provenance: Provenance
    format: int = RECORD_FORMAT


@dataclass(frozen=True)
class Study:
    """All records that one declared grid names: what the reports are made of."""

    data: DataCard
    base: BaseRecord
    footprints: list[FootprintRecord]
    trials: list[TrialRecord]
    evaluations: list[EvaluationRecord]
    merge: MergeRecord | None
    missing: dict[str, TrialKey] = field(default_factory=dict)
    """Declared trials without a record, by name."""
    items: dict[str, dict[str, list[ItemResult]]] = field(default_factory=dict)
    """Evaluation identity -> split -> scored items, in the split's order."""
    distributions: dict[str, Path] = field(default_factory=dict)
    """Evaluation identity -> file of next-token distributions on the test split."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    """What is good enough to ship, and what counts as cheap."""
