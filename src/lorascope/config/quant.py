"""The settings of a quantization mode: a file of conf/quant."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.config.bounds import FINITE, ONE_OR_MORE, Bound, bounded, named
from lorascope.config.choices import (
    GROUP_SIZES,
    GROUPED,
    OBSERVED,
    SERVED,
    Observer,
    Precision,
    Rounding,
    Storage,
)

GROUP_SIZE = Bound(lambda size: size in GROUP_SIZES, f"must be one of {GROUP_SIZES}")
ON_GRID = Bound(
    lambda storage: storage in GROUPED,
    "has no grid to train for",
    f"Leave it empty, or take one of {', '.join(GROUPED)}.",
)
A_ROW = "Leave it empty for one group an output row."


@dataclass
class QuantConfig:
    """The storage of the base, and the type that it computes in."""

    name: str = named("quant")
    storage: Storage = Storage.float16
    double_quantization: bool = False
    compute: Precision = Precision.auto
    int8_outlier_threshold: float = bounded(
        6.0, FINITE, "6.0 is the default, 0 keeps no outliers apart."
    )
    group_size: int | None = bounded(None, GROUP_SIZE, A_ROW)
    """Weights of an output row that share a scale, in int and uint storages; None is the row."""
    observer: Observer = Observer.min_max
    """For storage=w8a8_static: which range of a layer's inputs 8 bits cover."""
    percentile: float = bounded(
        99.9, Bound(lambda share: 90 <= share < 100, "must lie in [90, 100)"), "99.9 is usual."
    )
    """For observer=percentile: per cent of a layer's inputs that the range contains."""
    calibration_rows: int = bounded(64, ONE_OR_MORE, "64 is a good start.")
    """Rows of train on which storage=w8a8_static observes inputs, and `rounding` chooses codes."""
    rounding: Rounding = Rounding.nearest
    """For whole numbers with a scale a group: how codes are chosen."""
    rounding_steps: int = bounded(200, ONE_OR_MORE, "200 is AutoRound's own default.")
    """For rounding=auto_round: steps of descent for each block of layers."""

    @property
    def reads_rows(self) -> bool:
        """Whether a model is stored so with the help of rows of train."""
        return self.storage in OBSERVED or self.rounding is not Rounding.nearest

    @property
    def is_for_serving(self) -> bool:
        """Whether merged models alone are stored so, and nothing is trained on it."""
        return self.storage in SERVED or self.rounding is not Rounding.nearest
