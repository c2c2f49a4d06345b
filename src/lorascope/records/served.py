"""Merged models as they are served: stored in a mode of conf/quant."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.records.calibration import CalibrationRecord, RoundingRecord
from lorascope.records.trial import RECORD_FORMAT, Provenance

FORM_MARK = "@"
"""Between a trial and the form that it is served in; no name of a file of conf/ holds it."""


@dataclass(frozen=True)
class ServedForm:
    """What was scored where a trial was merged: its model, stored in a mode of conf/quant and
    loaded again from disk."""

    name: str
    """Of the mode."""
    settings: dict[str, object]
    """Of the mode, by configuration key."""
    total_bytes: int
    """Parameters, buffers and quantization constants, as a stored base is weighed."""
    file_bytes: int
    """Tensors in its files."""
    bits_per_quantized_parameter: float | None
    """(weights + constants) x 8 / parameters of its quantized layers; None where there are none."""
    content_sha256: str
    """Digest of its files, which are not kept."""
    calibration: CalibrationRecord | None = None
    """What the inputs of its layers were on rows of train; None for a mode that observes none."""
    rounding: RoundingRecord | None = None
    """How its codes were chosen on rows of train; None where they are the nearest."""


@dataclass(frozen=True)
class ServedRecord:
    """The shipped model in the form that it is served in, and its verification."""

    trial: str
    quant: str
    """The mode of the base that it was trained on."""
    served: ServedForm
    chosen_by: str
    """'auto: ...' with the rule, or 'named in ship'."""
    evaluation: str
    """Identity of the scores that the same trial has in this form."""
    validation_score: float | None
    """Accuracy of those scores where items can be right or wrong, else their loss."""
    as_scored: bool
    """Whether the files are byte for byte those that were scored."""
    items: int
    """Validation items that were scored again, with the model loaded from these files."""
    loss_nats: float
    """Mean loss of a completion token on these items."""
    scored_loss_nats: float
    """The same by the scores."""
    passed: bool
    provenance: Provenance
    format: int = RECORD_FORMAT
