"""All records of one declared grid, and that of its merged model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lorascope.config import DecideConfig
from lorascope.records.evaluation import EvaluationRecord, ItemResult
from lorascope.records.inputs import BaseRecord, DataCard, FootprintRecord
from lorascope.records.provenance import RECORD_FORMAT, Provenance
from lorascope.records.trial import TrialKey, TrialRecord


@dataclass(frozen=True)
class ArithmeticGap:
    """The adapter on its base as it was trained and scored, in 16 bits, beside the merged model in
    float32: what that arithmetic does to its predictions. No limit holds for it."""

    compute: str
    """Type of the products, such as bfloat16."""
    largest_logit_difference: float
    prediction_agreement: float
    adapter_loss_nats: float


@dataclass(frozen=True)
class MergeRecord:
    """A merged model and its verification."""

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
    stop_token_ids: list[int] = field(default_factory=list)
    """Tokens at which generation stops: the base's own, and the one that completions end with."""
    unrounded_logit_difference: float | None = None
    """For INT8: largest logit difference against the adapter on the dequantized base, without the
    rounding of activations that only INT8 inference has."""
    unrounded_agreement: float | None = None
    foreign_names: list[str] = field(default_factory=list)
    """Tensor names that the base's files do not have: programs that load by name may lack them."""
    arithmetic_gap: ArithmeticGap | None = None
    """For a base that computes in 16 bits; None where it computes in float32, and for INT8, whose
    own arithmetic the main figures have."""


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
    missing_settings: dict[str, dict[str, object]] = field(default_factory=dict)
    """Settings of the missing trials, by name."""
    items: dict[str, dict[str, list[ItemResult]]] = field(default_factory=dict)
    """Evaluation identity -> split -> scored items, in the split's order."""
    distributions: dict[str, Path] = field(default_factory=dict)
    """Evaluation identity -> file of next-token distributions on the test split."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    """The margins of what is good enough to ship, and the cost that it is judged by."""
