"""The data card: a prepared dataset."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    chance_accuracy: float | None = None
    """Share of rows that a guess among each row's choices gets right; None without choices."""


@dataclass(frozen=True)
class DataCard:
    """A prepared dataset."""

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
    max_dropped_fraction: float | None = None
    """The largest share of unfit rows that was allowed; None in older records."""
    unfit_rows: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> places of the first hundred rows that could not be trained on; `dropped_rows`
    counts them all."""
    special_tokens_in_text: dict[str, int] = field(default_factory=dict)
    """Special token -> rows whose own text holds it, where the model reads it as control."""
    settings: dict[str, object] | None = None
    """Settings of conf/data that it was made with (`files.made_with`); None in older records."""
    template_date: str | None = None
    """Date (YYYY-MM-DD) given to a chat template that asks for today's; None where it asks for
    none."""
    format: int = RECORD_FORMAT
