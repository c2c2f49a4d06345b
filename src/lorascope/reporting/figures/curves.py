"""What the figures draw: one curve a mode and adapter kind, one point a rank, means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from lorascope.comparing.results import Cell, CellScore, Measure
from lorascope.comparing.ruling import Findings


@dataclass(frozen=True)
class CurveKey:
    """What all points of a curve share."""

    quant: str
    targets: str
    alpha: float
    rslora: bool
    dora: bool
    variant: str

    @classmethod
    def of(cls, cell: Cell) -> CurveKey:
        """All that makes `cell` but its rank."""
        return cls(**{field.name: getattr(cell, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Point:
    """One rank. Accuracy in per cent, or completion loss in nats."""

    rank: int
    mean: float
    """Over seeds."""
    low: float
    """Lower end of the 95 % interval over test items and seeds."""
    high: float
    seeds: tuple[float, ...]
    """The single values."""


@dataclass(frozen=True)
class Curve:
    """The points of one key by rising rank, and the ranks at which nothing was scored."""

    key: CurveKey
    points: tuple[Point, ...]
    unscored_ranks: tuple[int, ...]


def scale(measure: Measure) -> float:
    """From a score to what an axis shows."""
    return 100.0 if measure is Measure.accuracy else 1.0


def curves(findings: Findings) -> list[Curve]:
    """In the order of the cells."""
    groups: dict[CurveKey, list[CellScore]] = {}
    for score in findings.cells:
        if not score.cell.is_base:
            groups.setdefault(CurveKey.of(score.cell), []).append(score)
    return [_curve(key, scores, findings.measure) for key, scores in groups.items()]


def bases(findings: Findings) -> dict[str, float]:
    """Mode -> test score of its bare base, where it has one."""
    factor = scale(findings.measure)
    found = {
        score.cell.quant: score.test(findings.measure)
        for score in findings.cells
        if score.cell.is_base
    }
    return {quant: factor * e.value for quant, e in found.items() if e is not None}


def _curve(key: CurveKey, scores: Sequence[CellScore], measure: Measure) -> Curve:
    by_rank = sorted(scores, key=lambda score: score.cell.rank)
    points = {score.cell.rank: _point(score, measure) for score in by_rank}
    known = tuple(point for point in points.values() if point is not None)
    return Curve(key, known, tuple(rank for rank, point in points.items() if point is None))


def _point(score: CellScore, measure: Measure) -> Point | None:
    estimate, factor = score.test(measure), scale(measure)
    if estimate is None:
        return None
    seeds = tuple(factor * trial.test for trial in score.trials if trial.test is not None)
    ends = factor * estimate.low, factor * estimate.high
    return Point(score.cell.rank, factor * estimate.value, *ends, seeds)
