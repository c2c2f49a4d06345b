"""What the figures draw: one curve a mode and adapter kind, one point a rank, means over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lorascope.maths.statistics import wilson_interval
from lorascope.records import Study
from lorascope.reporting.accuracy_table import AccuracyRow


@dataclass(frozen=True)
class CurveKey:
    """What all points of a curve share."""

    quant: str
    targets: str | None
    rslora: bool | None
    dora: bool | None
    alpha: float | None


@dataclass(frozen=True)
class Point:
    """One rank."""

    rank: int
    mean: float
    """Over seeds: accuracy in per cent, or completion loss in nats."""
    low: float | None
    """Lower end of the 95 % interval for sampling the test items, at the mean."""
    high: float | None
    seeds: tuple[float, ...]
    """The single values."""
    bytes: int | None
    """Stored base in this mode plus the adapter."""


@dataclass(frozen=True)
class Curve:
    """The points of one key by rising rank, and the ranks at which nothing was scored."""

    key: CurveKey
    points: tuple[Point, ...]
    unscored_ranks: tuple[int, ...]


def scored_by_accuracy(rows: Iterable[AccuracyRow]) -> bool:
    """Whether rows can be right or wrong; where not, the completion loss is what there is."""
    return any(row.accuracy is not None for row in rows)


def value(row: AccuracyRow, by_accuracy: bool) -> float | None:
    """What a row contributes to a figure: per cent right, or nats."""
    if not by_accuracy:
        return row.completion_loss_nats
    return None if row.accuracy is None else 100 * row.accuracy


def curves(study: Study, rows: Sequence[AccuracyRow]) -> list[Curve]:
    """In the order of `rows`."""
    by_accuracy = scored_by_accuracy(rows)
    groups: dict[CurveKey, dict[int, list[AccuracyRow]]] = {}
    for row in rows:
        if row.quant is not None and row.rank is not None:
            key = CurveKey(row.quant, row.targets, row.rslora, row.dora, row.alpha)
            groups.setdefault(key, {}).setdefault(row.rank, []).append(row)
    sizes = _shipped_bytes(study)
    drawn = []
    for key, by_rank in groups.items():
        points = {rank: _point(by_rank[rank], by_accuracy, sizes) for rank in sorted(by_rank)}
        known = tuple(point for point in points.values() if point is not None)
        drawn.append(Curve(key, known, tuple(r for r, point in points.items() if point is None)))
    return drawn


def _point(rows: Sequence[AccuracyRow], by_accuracy: bool, sizes: dict[str, int]) -> Point | None:
    """One rank's point from its seeds; None where no seed has a score."""
    values = tuple(v for row in rows if (v := value(row, by_accuracy)) is not None)
    if not values:
        return None
    mean = sum(values) / len(values)
    items = min((row.items for row in rows if row.items), default=0)
    low, high = None, None
    if by_accuracy and items:
        low, high = (100 * end for end in wilson_interval(mean / 100, items))
    rank = rows[0].rank
    assert rank is not None
    found = [sizes[row.trial] for row in rows if row.trial in sizes]
    return Point(rank, mean, low, high, values, max(found, default=None))


def _shipped_bytes(study: Study) -> dict[str, int]:
    """Trial -> bytes of its mode's stored base and its adapter, where both are known."""
    bases = {footprint.quant: footprint.total_bytes for footprint in study.footprints}
    return {
        trial.trial: bases[trial.key.quant] + trial.result.adapter_bytes
        for trial in study.trials
        if trial.result is not None and trial.key.quant in bases
    }
