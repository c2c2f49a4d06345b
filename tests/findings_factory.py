"""Findings as `compare` would shape them, made by hand: plain arithmetic on a study's scores.

The intervals and p-values are rough (normal, one number of discordant items for all): enough for
pages that must show them, and not what `compare` computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean, stdev

from lorascope.comparing.results import (
    Candidate,
    Cell,
    CellCost,
    CellScore,
    Comparison,
    Decision,
    Estimate,
    Findings,
    FrontierPoint,
    Measure,
    Pairing,
    Power,
    Projection,
    SeedTrial,
    Verdict,
)
from lorascope.config import DecideConfig
from lorascope.records import Study
from lorascope.reporting.accuracy_table import AccuracyRow, accuracy_rows

RULE = DecideConfig(name="default")
Z = 1.959964


def make_findings(
    study: Study, *, clusters: int | None = 80, threats: Sequence[str] = ("Items repeat.",)
) -> Findings:
    """Findings of `study`; the reference is the first mode's rank that validates best."""
    rows = [row for row in accuracy_rows(study) if row.quant is not None]
    by_accuracy = any(row.accuracy is not None for row in rows)
    measure = Measure.accuracy if by_accuracy else Measure.loss_nats
    groups: dict[Cell, list[AccuracyRow]] = {}
    for row in rows:
        groups.setdefault(_cell(row), []).append(row)
    cells = tuple(_score(study, cell, group, measure) for cell, group in groups.items())
    comparisons = tuple(_comparisons(cells, measure))
    return Findings(
        measure=measure,
        cells=cells,
        comparisons=comparisons,
        decision=_decision(cells, comparisons, measure),
        frontiers=_frontiers(cells, measure),
        power=_power(cells, comparisons, measure, clusters),
        threats=tuple(threats),
    )


def _cell(row: AccuracyRow) -> Cell:
    return Cell(
        row.quant or "", row.targets or "", row.rank or 0, row.alpha or 0.0, bool(row.rslora),
        bool(row.dora),
    )  # fmt: skip


def _score(study: Study, cell: Cell, rows: Sequence[AccuracyRow], measure: Measure) -> CellScore:
    validation = [_value(row, measure, "validation") for row in rows]
    test = [_value(row, measure, "test") for row in rows]
    trials = tuple(
        SeedTrial(
            row.trial, row.seed or 0, row.status if row.scored else _status(row), row.reason, v, t
        )
        for row, v, t in zip(rows, validation, test, strict=True)
    )
    return CellScore(
        cell=cell,
        trials=() if cell.is_base else trials,
        accuracy=estimate([r.accuracy for r in rows], rows[0].items or 0, share=True),
        loss=estimate([r.completion_loss_nats for r in rows], rows[0].items or 0),
        validation=estimate(validation, 200, share=measure is Measure.accuracy),
        cost=_cost(study, cell, rows),
        complete=all(row.scored for row in rows),
    )


def _status(row: AccuracyRow) -> str:
    return "not scored" if row.status == "completed" else row.status


def _value(row: AccuracyRow, measure: Measure, split: str) -> float | None:
    if measure is Measure.accuracy:
        return row.validation_accuracy if split == "validation" else row.accuracy
    return row.validation_loss_nats if split == "validation" else row.completion_loss_nats


def estimate(values: Sequence[float | None], items: int, *, share: bool = False) -> Estimate | None:
    """Mean over seeds with a normal interval; None where no seed has a value."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or not items:
        return None
    mean = fmean(known)
    spread = stdev(known) if len(known) > 1 else None
    error = math.sqrt(
        (mean * (1 - mean) if share else 1.0) / items + (spread or 0.0) ** 2 / len(known)
    )
    low, high = mean - Z * error, mean + Z * error
    if share:
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(mean, low, high, error, items, 80, len(known), spread)


def _cost(study: Study, cell: Cell, rows: Sequence[AccuracyRow]) -> CellCost:
    names = {row.trial for row in rows}
    results = [t.result for t in study.trials if t.trial in names and t.result is not None]
    stored = rows[0].stored_bytes
    if cell.is_base:
        return CellCost(stored, None, False, None, None, None, None)
    if not results or stored is None:
        return CellCost(None, None, False, None, None, None, None)
    adapter = fmean(result.adapter_bytes for result in results)
    peaks = [result.memory["train"].resident_growth_bytes or 0 for result in results]
    seconds = fmean(result.train_seconds for result in results)
    return CellCost(stored + adapter, fmean(peaks), True, adapter, seconds, None, None)


def compared(
    subject: CellScore, reference: CellScore, pairing: Pairing, measure: Measure
) -> Comparison | None:
    """Subject minus reference on test items; None where one has no score."""
    first, second = _test(subject, measure), _test(reference, measure)
    if first is None or second is None:
        return None
    value = first.value - second.value
    error = math.sqrt(0.12 / first.items) if measure is Measure.accuracy else 0.02
    difference = replace(
        first, value=value, low=value - Z * error, high=value + Z * error, standard_error=error
    )
    gain = value if measure is Measure.accuracy else -value
    p_value = math.erfc(abs(value) / error / math.sqrt(2))
    margin = math.erfc((gain + _margin(measure)) / error / math.sqrt(2)) / 2
    only = round(0.06 * first.items)
    shares = measure is Measure.accuracy
    return Comparison(
        pairing=pairing, subject=subject.cell, reference=reference.cell, measure=measure,
        difference=difference, p_value=p_value, p_holm=min(1.0, 9 * p_value),
        p_margin_holm=min(1.0, 9 * margin), verdict=_verdict(gain, 9 * p_value, 9 * margin),
        subject_only_right=only if shares else None,
        reference_only_right=max(0, only - round(value * first.items)) if shares else None,
        judged=first.items * first.seeds if shares else None,
        divergence_nats=None if pairing is Pairing.base else 0.0123,
        smaller_than_seed_spread=None if first.seed_deviation is None
        else abs(value) < first.seed_deviation,
        detectable=2.8 * error, confounds=("effective scale",) if pairing is Pairing.rank else (),
    )  # fmt: skip


def _verdict(gain: float, p_value: float, p_margin: float) -> Verdict:
    if p_value < 0.05:
        return Verdict.better if gain > 0 else Verdict.worse
    return Verdict.no_worse if p_margin < 0.05 else Verdict.undecided


def _margin(measure: Measure) -> float:
    return RULE.margin_accuracy if measure is Measure.accuracy else RULE.margin_loss_nats


def _test(score: CellScore, measure: Measure) -> Estimate | None:
    return score.accuracy if measure is Measure.accuracy else score.loss


def _comparisons(cells: Sequence[CellScore], measure: Measure) -> list[Comparison]:
    found = []
    modes = list(dict.fromkeys(score.cell.quant for score in cells))
    for one, other in product(cells, cells):
        a, b = one.cell, other.cell
        same_mode = a.quant == b.quant
        if not same_mode and b.quant == modes[0] and replace(a, quant=b.quant) == b:
            found.append(compared(one, other, Pairing.mode, measure))
        if same_mode and b.is_base and not a.is_base:
            found.append(compared(one, other, Pairing.base, measure))
        if same_mode and b == _best(cells, a.quant, measure) and a.rank not in (0, b.rank):
            found.append(compared(one, other, Pairing.rank, measure))
    return [comparison for comparison in found if comparison is not None]


def _best(cells: Sequence[CellScore], quant: str, measure: Measure) -> Cell | None:
    scored = [
        s
        for s in cells
        if s.cell.quant == quant and not s.cell.is_base and s.validation is not None
    ]
    sign = 1 if measure is Measure.accuracy else -1
    best = max(scored, key=lambda s: sign * s.validation.value if s.validation else 0, default=None)
    return best.cell if best else None


def _decision(
    cells: Sequence[CellScore], comparisons: Sequence[Comparison], measure: Measure
) -> Decision:
    by_cell = {score.cell: score for score in cells}
    quants = list(dict.fromkeys(score.cell.quant for score in cells))
    reference = next((b for q in quants if (b := _best(cells, q, measure))), None)
    adapters = sorted(
        (s for s in cells if not s.cell.is_base), key=lambda s: s.cost.serving_bytes or math.inf
    )
    candidates = tuple(_candidate(s, by_cell.get(reference or s.cell), measure) for s in adapters)
    passing = [
        c for c in candidates
        if c.cell == reference or c.verdict in (Verdict.better, Verdict.no_worse)
    ]  # fmt: skip
    chosen = passing[0].cell if passing and reference else None
    at = next((i for i, c in enumerate(candidates) if c.cell == chosen), 0)
    still_open = tuple(
        c for c in candidates[:at] if c.verdict is Verdict.undecided and not c.ineligible
    )
    test = None
    if chosen is not None and reference is not None and chosen != reference:
        test = compared(by_cell[chosen], by_cell[reference], Pairing.mode, measure)
    trials = [t for t in by_cell[chosen].trials if t.test is not None] if chosen else []
    seeds = max((len(s.trials) for s in cells), default=1)
    width = 0.034 if measure is Measure.accuracy else 0.04
    projection = Projection(
        3, width, 0.7 * width if seeds > 1 else 0.5 * width, 0.7 * width if seeds > 1 else width,
        seeds > 1,
    )  # fmt: skip
    return Decision(
        rule=RULE, measure=measure, margin=_margin(measure), reference=reference,
        reference_is_declared=bool(quants) and quants[0] == RULE.reference_quant,
        candidates=candidates, recommended=chosen, trial=trials[0].trial if trials else None,
        open=still_open, test=test, projection=projection if chosen else None,
    )  # fmt: skip


def _candidate(score: CellScore, reference: CellScore | None, measure: Measure) -> Candidate:
    compare = None
    if reference is not None and reference.cell != score.cell:
        compare = compared(score, reference, Pairing.mode, measure)
    undecided = compare is not None and compare.verdict is Verdict.undecided
    return Candidate(
        cell=score.cell,
        cost=score.cost.serving_bytes,
        difference=compare.difference if compare else None,
        p_margin_holm=compare.p_margin_holm if compare else None,
        verdict=compare.verdict if compare else None,
        ineligible=None if score.complete else "a seed has no score",
        items_needed=1_450 if undecided else None,
        seeds_needed=5 if undecided and len(score.trials) > 1 else None,
    )


def _frontiers(
    cells: Sequence[CellScore], measure: Measure
) -> dict[str, tuple[FrontierPoint, ...]]:
    found = {}
    for cost in ("serving_bytes", "training_peak_bytes", "train_seconds"):
        known = sorted(
            (value, estimate.value, score.cell)
            for score in cells
            if (value := getattr(score.cost, cost)) is not None
            and (estimate := _test(score, measure)) is not None
        )
        sign = 1 if measure is Measure.accuracy else -1
        points, best = [], -math.inf
        for value, mean, cell in known:
            on = sign * mean > best
            best = max(best, sign * mean)
            points.append(FrontierPoint(cell, value, mean, on, 0.86 if on else 0.18))
        if points:
            found[cost] = tuple(points)
    return found


def _power(
    cells: Sequence[CellScore],
    comparisons: Sequence[Comparison],
    measure: Measure,
    clusters: int | None,
) -> Power | None:
    items = max((e.items for s in cells if (e := _test(s, measure))), default=None)
    if items is None:
        return None
    before = {f"{d} %": Z * math.sqrt(d / 100 / items) for d in (5, 10, 20)}
    found = [c.detectable for c in comparisons if c.pairing is Pairing.mode]
    after = sorted(found)[len(found) // 2] if found else None
    return Power(
        items, clusters, measure, before if measure is Measure.accuracy else {}, after,
        len(comparisons), None if after is None else 1.4 * after,
    )  # fmt: skip
