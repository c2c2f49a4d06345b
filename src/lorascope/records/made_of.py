"""Which records a report was made of, as one digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from lorascope.config import DecideConfig
from lorascope.records.served import ServedRecord
from lorascope.records.study import EvaluationRecord, MergeRecord
from lorascope.records.trial import TrialRecord


def made_of(
    rule: DecideConfig,
    trials: Iterable[TrialRecord],
    evaluations: Iterable[EvaluationRecord],
    merge: MergeRecord | None,
    served: ServedRecord | None,
) -> str:
    """A sha256 of the rule and of what tells these records from others, in whatever order they
    come. Equal identities have equal scores, but each run has its own seconds and bytes."""
    lines = [
        *(f"trial {t.trial} {t.identity} {t.status} {t.provenance.created_utc}" for t in trials),
        *(
            f"scores {e.quant} {e.name} {e.identity} {e.provenance.created_utc}"
            for e in evaluations
        ),
        *([] if merge is None else [f"merge {merge.trial} {merge.content_sha256} {merge.passed}"]),
        *([] if served is None else [f"served {served.evaluation} {served.passed}"]),
    ]
    return hashlib.sha256("\n".join([repr(rule), *sorted(lines)]).encode()).hexdigest()
