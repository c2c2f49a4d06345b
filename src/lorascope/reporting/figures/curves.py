"""What the figures draw: one curve a mode and adapter kind, one point a size, means over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lorascope.adapters.kinds import method_of
from lorascope.comparing.results import CellKey, CellScore, Estimate, Measure
from lorascope.comparing.ruling import Findings
from lorascope.records import dial_text


def curve_key(cell: CellKey) -> CellKey:
    """What all points of a curve share: all that makes `cell` but its size."""
    shared = tuple((d.name, value) for d, value in cell.shown() if not d.is_axis)
    return replace(cell, dials=shared)


@dataclass(frozen=True)
class Point:
    """One size. Accuracy in per cent, or completion loss in nats."""

    place: float
    """On the axis of sizes."""
    size: str
    """rank 8; the method where nothing sizes its adapters."""
    mean: float
    """Over seeds."""
    low: float
    """Lower end of the 95 % interval over test items and seeds."""
    high: float
    seeds: tuple[float, ...]
    """The single values."""
    cell: CellKey
    """The configuration that is drawn there."""
    words: tuple[str, ...]
    """What is to be read off, as the tables write it."""


@dataclass(frozen=True)
class Curve:
    """The points of one key by rising size, and the places at which nothing was scored."""

    key: CellKey
    points: tuple[Point, ...]
    unscored: tuple[float, ...]


@dataclass(frozen=True)
class SizeAxis:
    """The axis of sizes: powers of two, then a place for each method without a size."""

    label: str
    """LoRA rank."""
    noun: str
    """rank."""
    ticks: dict[float, str]
    """Place -> what stands there."""
    is_mixed: bool
    """Whether methods have sizes of different kinds."""

    def place(self, cell: CellKey) -> float:
        """Where `cell` is drawn."""
        sizes = [float(value) for dial, value in cell.shown() if dial.is_axis]
        words = cell.size()
        return sizes[0] if sizes else next(x for x, tick in self.ticks.items() if tick == words)


def size_axis(cells: Iterable[CellKey]) -> SizeAxis:
    """For all adapters of a study."""
    adapters = [cell for cell in cells if not cell.base]
    sized = [(c, d, float(v)) for c in adapters for d, v in c.shown() if d.is_axis]
    ticks = {place: dial_text(place) for place in sorted({value for _, _, value in sized})}
    known = {cell for cell, _, _ in sized}
    for words in dict.fromkeys(cell.size() for cell in adapters if cell not in known):
        ticks[2 * max(ticks, default=0.5)] = words
    nouns = dict.fromkeys(dial.noun for _, dial, _ in sized)
    labels = dict.fromkeys(f"{method_of(c.method).label} {d.noun}" for c, d, _ in sized)
    label, noun = " or ".join(labels) or "Method", " or ".join(nouns) or "method"
    return SizeAxis(label, noun, ticks, is_mixed=len(nouns) > 1)


def curves(findings: Findings) -> list[Curve]:
    """In the order of the cells."""
    axis = size_axis(score.cell for score in findings.cells)
    groups: dict[CellKey, list[CellScore]] = {}
    for score in findings.cells:
        if not score.cell.base:
            groups.setdefault(curve_key(score.cell), []).append(score)
    return [_curve(key, scores, axis, findings.measure) for key, scores in groups.items()]


MOST_CURVES = 12
"""Curves that can be told apart."""


def drawn_curves(findings: Findings) -> list[Curve]:
    """All curves, or where they are too many to be told apart, one a mode and form: at each size
    the configuration that validates best."""
    found = curves(findings)
    if len(found) <= MOST_CURVES:
        return found
    axis, measure = size_axis(score.cell for score in findings.cells), findings.measure
    best: dict[CellKey, dict[float, CellScore]] = {}
    for score in findings.cells:
        if score.cell.base:
            continue
        at = best.setdefault(_mode_key(score.cell), {})
        place = axis.place(score.cell)
        if place not in at or _validated(score, measure) > _validated(at[place], measure):
            at[place] = score
    return [_curve(key, list(at.values()), axis, measure) for key, at in best.items()]


def _mode_key(cell: CellKey) -> CellKey:
    """What all configurations of one mode and form share."""
    return CellKey(cell.quant, serve=cell.serve)


def _validated(score: CellScore, measure: Measure) -> float:
    """More is better; what has no score comes last."""
    if score.validation is None or score.test(measure) is None:
        return -math.inf
    return measure.sign * score.validation.value


def bases(findings: Findings) -> dict[str, float]:
    """Mode -> test score of its bare base, where it has one."""
    factor = findings.measure.scale
    found = {
        score.cell.quant: score.test(findings.measure)
        for score in findings.cells
        if score.cell.base
    }
    return {quant: factor * e.value for quant, e in found.items() if e is not None}


FAR_SPANS = 4.0
"""A level that lies further from all intervals than so many times their span would squash what is
compared."""


def far_levels(levels: Mapping[str, float], ends: Sequence[float]) -> dict[str, float]:
    """Those levels that an axis of these interval ends leaves out, and a caption says."""
    if not ends or max(ends) == min(ends):
        return {}
    low, high = min(ends), max(ends)
    far = FAR_SPANS * (high - low)
    return {name: level for name, level in levels.items() if max(low - level, level - high) > far}


def far_words(findings: Findings, ends: Sequence[float]) -> str:
    """A sentence on the bare bases and the chance that an axis leaves out; empty where it has all
    of them."""
    measure, levels = findings.measure, bases(findings)
    found = far_levels(levels, ends)
    far = sorted(found.values())
    said = dict.fromkeys(measure.score(level / measure.scale) for level in (*far[:1], *far[-1:]))
    which = "the bare base" if len(found) == 1 else "bare bases"
    if len(found) < len(levels):
        which += f" of {', '.join(found)}"
    told = [f"{which} ({' to '.join(said)} {measure.unit})"] if far else []
    if findings.chance is not None:
        chance = measure.scale * findings.chance
        told += [f"chance ({chance:.1f} {measure.unit})"] * len(far_levels({"": chance}, ends))
    return f"Far off the axis, and not drawn: {' and '.join(told)}. " if told else ""


def ends_of(drawn: Iterable[Curve]) -> list[float]:
    """Both ends of every interval."""
    return [end for curve in drawn for point in curve.points for end in (point.low, point.high)]


def _curve(key: CellKey, scores: Sequence[CellScore], axis: SizeAxis, measure: Measure) -> Curve:
    by_size = sorted(scores, key=lambda score: axis.place(score.cell))
    points = {axis.place(score.cell): _point(score, axis, measure) for score in by_size}
    known = tuple(point for point in points.values() if point is not None)
    return Curve(key, known, tuple(place for place, point in points.items() if point is None))


def _point(score: CellScore, axis: SizeAxis, measure: Measure) -> Point | None:
    estimate, factor = score.test(measure), measure.scale
    if estimate is None:
        return None
    seeds = tuple(factor * trial.test for trial in score.trials if trial.test is not None)
    low, high = (factor * end for end in estimate.ends)
    place = axis.place(score.cell)
    mean, words = factor * estimate.value, read_off(estimate, measure)
    if len(seeds) > 1:
        values = (measure.score(t.test) for t in score.trials if t.test is not None)
        words = (*words, f"{len(seeds)} seeds: {', '.join(values)}")
    return Point(place, score.cell.size(), mean, low, high, seeds, score.cell, words)


def read_off(estimate: Estimate, measure: Measure) -> tuple[str, ...]:
    """A test score and its interval, as the tables write them."""
    return (
        f"test {measure.words} {measure.score(estimate.value)} {measure.unit}",
        f"95 % interval {measure.interval(estimate.ends)}",
    )
