"""The merged model and its verification."""

from __future__ import annotations

from dataclasses import dataclass, field

from lorascope.records.format import RECORD_FORMAT
from lorascope.records.provenance import Provenance


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
