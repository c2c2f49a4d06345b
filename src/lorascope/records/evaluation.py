"""Scores of a trial or a bare base, item by item and summed up."""

from __future__ import annotations

from dataclasses import dataclass, field

from lorascope.records.provenance import RECORD_FORMAT, Provenance
from lorascope.records.trial import TrialKey


@dataclass(frozen=True)
class ItemResult:
    """One scored item, for item-by-item comparison."""

    item: str
    """Hash of the row."""
    prompt_sha256: str
    target_sha256: str
    correct: bool | None
    loss_nats: float
    """Loss summed over the completion's tokens."""
    tokens: int
    cluster: str | None = None
    """Hash of what this item shares with others (a person, a document); None where it shares
    nothing."""
    correct_norm: bool | None = None
    """Whether the choice with the highest log-likelihood a character is right (lm-eval's
    `acc_norm`)."""
    stock_encoding: bool | None = None
    """Whether stock lm-eval splits this item into the same tokens. If not, its scores differ: it
    encodes the prompt by itself, which cuts a token that reaches into the completion. None in older
    items."""


@dataclass(frozen=True)
class SplitScore:
    """Scores on one split."""

    items: int
    accuracy: float | None
    """Share right; None where rows cannot be right or wrong."""
    accuracy_standard_error: float | None
    completion_loss_nats: float
    """Mean loss of all completion tokens of the split."""
    accuracy_norm: float | None = None
    """Share of items whose choice with the highest log-likelihood a character is right (lm-eval's
    `acc_norm`)."""
    items_unlike_stock: int | None = None
    """Number of items that stock lm-eval splits into other tokens; None in older records."""


@dataclass(frozen=True)
class EvaluationRecord:
    """Scores of one trial, or of the bare base (trial_identity=None)."""

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
    """Digest of the file with next-token distributions on the test split."""
    protocol: dict[str, str] = field(default_factory=dict)
    """The rules of scoring in words, for whoever wants the same numbers."""
