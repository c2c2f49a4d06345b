"""All records of one declared grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lorascope.config import DecideConfig
from lorascope.records.base import BaseRecord, FootprintRecord
from lorascope.records.data import DataCard
from lorascope.records.evaluation import EvaluationRecord, ItemResult
from lorascope.records.merge import MergeRecord
from lorascope.records.trial import TrialKey, TrialRecord


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
