"""The typed results that stages write beside their outputs: the truth that all else mirrors.

Units stand in the names: bytes, seconds, nats, tokens. None means unknown: blank in tables.
"""

from lorascope.records.dials import Dial, Dials, DialValue, Method, dial_text
from lorascope.records.inputs import (
    BaseRecord,
    DataCard,
    FootprintRecord,
    LayerError,
    LinearShape,
    Matrix,
    ModelParts,
    SplitCard,
    UnadaptedWeights,
    VectorShape,
)
from lorascope.records.study import (
    ArithmeticGap,
    EvaluationRecord,
    ItemResult,
    MergeRecord,
    SplitScore,
    Study,
)
from lorascope.records.trial import (
    LASTING,
    RECORD_FORMAT,
    LossPoint,
    MemoryPlan,
    PhaseMemory,
    Provenance,
    Status,
    TakenOver,
    TrainingResult,
    TrialKey,
    TrialRecord,
    ValidationPoint,
    mixed_versions,
)

__all__ = [
    "LASTING", "RECORD_FORMAT", "ArithmeticGap", "BaseRecord", "DataCard", "Dial", "DialValue",
    "Dials", "EvaluationRecord", "FootprintRecord", "ItemResult", "LayerError", "LinearShape",
    "LossPoint", "Matrix", "MemoryPlan", "MergeRecord", "Method", "ModelParts", "PhaseMemory",
    "Provenance", "SplitCard", "SplitScore", "Status", "Study", "TakenOver", "TrainingResult",
    "TrialKey", "TrialRecord", "UnadaptedWeights", "ValidationPoint", "VectorShape", "dial_text",
    "mixed_versions",
]  # fmt: skip
