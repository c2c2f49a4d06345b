"""What prepare-data made."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.records.format import RECORD_FORMAT
from lorascope.records.provenance import Provenance


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
