"""The settings of a quantization mode: a file of conf/quant."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.config.bounds import FINITE, ONE_OR_MORE, Bound, bounded, named
from lorascope.config.choices import GROUP_SIZES, GROUPED, Observer, Precision, Storage

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
    """For storage=w8a8_static: rows of train on which inputs are observed."""
