"""What a stored model owes to rows of train: ranges of its layers' inputs, or its codes."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.records.trial import RECORD_FORMAT


@dataclass(frozen=True)
class LayerRange:
    """The inputs of one layer on the calibration rows, and its weights.

    A code q of an input, from -128 to 127, stands for scale x (q - zero_point).
    """

    name: str
    """Full dotted name in the model."""
    values: int
    """Inputs seen: tokens x in_features."""
    observed_min: float
    observed_max: float
    scale: float
    zero_point: int
    clipped_share: float
    """Share of the inputs that no code is within half a step of."""
    mean_squared_error: float
    """Of the inputs as codes give them back, against what they were."""
    mean_square: float
    """Of the inputs."""
    weight_min: float
    weight_max: float
    stored_weight_min: float
    """Of the weights, in the type that calibration computes in, as codes give them back."""
    stored_weight_max: float

    @property
    def covered(self) -> tuple[float, float]:
        """The smallest and largest input that a code stands for."""
        return self.scale * (-128 - self.zero_point), self.scale * (127 - self.zero_point)

    @property
    def relative_rmse(self) -> float:
        """sqrt(mean((x - q)^2) / mean(x^2)); 0 of inputs that are all 0."""
        return (self.mean_squared_error / self.mean_square) ** 0.5 if self.mean_square else 0.0


@dataclass(frozen=True)
class CalibrationRecord:
    """The calibration of one stored model."""

    observer: str
    percentile: float | None
    """None of an observer that has no such setting."""
    rows: int
    """Of the train split, and of no other."""
    tokens: int
    rows_sha256: str
    """Digest of each row's item and token ids."""
    layers: list[LayerRange]
    """In model order."""
    format: int = RECORD_FORMAT

    @property
    def clipped_share(self) -> float:
        """Share of all inputs of all layers that were clipped."""
        clipped = sum(layer.clipped_share * layer.values for layer in self.layers)
        return clipped / sum(layer.values for layer in self.layers)


@dataclass(frozen=True)
class RoundingRecord:
    """How the codes of one stored model were chosen on rows of train."""

    rounding: str
    library: str
    """With its version."""
    steps: int | None
    """Of descent, for each block of layers; None of a way that takes none."""
    rows: int
    """Of the train split, and of no other."""
    tokens: int
    rows_sha256: str
    """Digest of each row's item and token ids."""
    layers: int
    """Quantized layers."""
    rounded_to_nearest: list[str]
    """Names of those that the library left out."""
    format: int = RECORD_FORMAT
