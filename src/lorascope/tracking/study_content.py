"""The runs that are no trial's, as plain values: a bare base, and a study with its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lorascope.files.revisions import canonical_sha256
from lorascope.records import EvaluationRecord, FootprintRecord, MergeRecord
from lorascope.tracking.content import (
    ATTEMPT_TAG,
    IDENTITY_TAG,
    MAX_TEXT,
    SOURCE_TAGS,
    RunContent,
    experiment_name,
    milliseconds,
    provenance_tags,
)
from lorascope.tracking.points import Point

STUDY_TAG = "lorascope.study"
FILES_TAG = "lorascope.files"
"""Tag with the digest of a run's figures: they are sent again where they changed."""
NOTE_TAG = "mlflow.note.content"


@dataclass(frozen=True)
class BareBase:
    """A bare base in one mode, and its scores on one dataset."""

    model: str
    data: str
    data_sha256: str
    footprint: FootprintRecord
    scores: EvaluationRecord

    @property
    def experiment(self) -> str:
        return experiment_name(self)


@dataclass(frozen=True)
class StudyContent:
    """The answer of one declared grid, and what was drawn of it."""

    model: str
    data: str
    data_sha256: str
    name: str
    """What the run is called: the answer in a few words."""
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    note: str
    """The answer in sentences."""
    files: Mapping[str, str]
    """Artifact -> text."""
    created_utc: str
    """When its newest scores were made."""
    trials: frozenset[str] = frozenset()
    """Identities of its trials."""
    bases: tuple[BareBase, ...] = ()
    merge: MergeRecord | None = None
    """What is shipped."""

    @property
    def experiment(self) -> str:
        return experiment_name(self)

    @property
    def files_sha256(self) -> str:
        return canonical_sha256(dict(self.files))


def base_run(base: BareBase) -> RunContent:
    """The run of a bare base: its mode and memory; scores are added as a trial's are."""
    footprint, scores = base.footprint, base.scores
    identity = f"{base.experiment}/{scores.quant}/{scores.name}"
    start = milliseconds(scores.provenance.created_utc)
    sizes = {
        "stored_bytes": footprint.total_bytes,
        "quantized_weight_bytes": footprint.quantized_weight_bytes,
        "quantization_constant_bytes": footprint.quantization_constant_bytes,
        "bits_per_quantized_parameter": footprint.bits_per_quantized_parameter,
    }
    end = start + int(scores.seconds * 1000)
    return RunContent(
        identity=identity,
        attempt=identity,
        name=f"{scores.quant}-bare-base",
        status="FINISHED",
        start_ms=start,
        end_ms=end,
        tags={
            **dict.fromkeys((IDENTITY_TAG, ATTEMPT_TAG), identity),
            **SOURCE_TAGS,
            **provenance_tags(scores.provenance),
        },
        params={
            "model": base.model, "data": base.data, "quant": scores.quant, "method": "bare base",
            "storage": footprint.storage, "device": scores.provenance.device,
        },
        data=(base.data, base.data_sha256),
        points=[Point(name, value, 0) for name, value in sizes.items() if value is not None],
    )  # fmt: skip


def study_run(study: StudyContent) -> RunContent:
    """The run above a study's sweeps and bases; what may change later is added to it."""
    identity = f"{study.experiment} study"
    created = milliseconds(study.created_utc)
    return RunContent(
        identity=identity,
        attempt=identity,
        name=study.name,
        status="FINISHED",
        start_ms=created,
        end_ms=created,
        tags={**dict.fromkeys((IDENTITY_TAG, ATTEMPT_TAG), identity), **SOURCE_TAGS},
        params={"model": study.model, "data": study.data},
        data=(study.data, study.data_sha256),
    )


def changing_tags(study: StudyContent) -> dict[str, str]:
    """Tags of the study's run that follow its answer."""
    return {
        STUDY_TAG: study.name,
        NOTE_TAG: study.note[:MAX_TEXT],
        **{name: value[:MAX_TEXT] for name, value in study.tags.items()},
    }
