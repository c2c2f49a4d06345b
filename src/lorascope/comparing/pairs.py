"""Which configurations are compared, and what each comparison establishes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from lorascope.comparing.cells import (
    CellData,
    Compared,
    Scored,
    base_cell,
    items_key,
    join_scored,
)
from lorascope.comparing.confounds import confounds_of
from lorascope.comparing.divergences import mean_divergence_nats
from lorascope.comparing.estimates import Tested, compare_joined, seed_components
from lorascope.comparing.reference import Form, form_of
from lorascope.comparing.results import CellKey, Comparison, Measure, Pairing, Verdict
from lorascope.comparing.seed_spread import SeedSpreads, seed_spreads
from lorascope.files.kept import kept, map_kept
from lorascope.records import EvaluationRecord, Study
from lorascope.statistics.families import choice_factor, holm, holm_hopeful
from lorascope.statistics.two_way import Components

SIGNIFICANT = 0.05
ROUNDING = 1e-12


@dataclass(frozen=True)
class Pair:
    """Two cells to compare."""

    pairing: Pairing
    subject: CellData
    reference: CellData


def pairs(
    cells: Mapping[CellKey, CellData],
    reference_quant: str,
    best: Mapping[Form, CellKey],
    far: Collection[CellKey],
) -> Iterator[Pair]:
    """Every pair that matters among scored cells.

    Each mode against the reference mode, all else equal; each adapter against the one of its mode
    and form that validates `best`; each adapter against its mode's bare base; each merged and
    stored model against the same adapter apart on its base.
    """
    for data in cells.values():
        if data.cell.base or not data.scored:
            continue
        found = [
            (Pairing.mode, _counterpart(data.cell, reference_quant, cells, far)),
            (Pairing.rank, best.get(form_of(data.cell), data.cell)),
            (Pairing.base, base_cell(data.cell.quant)),
            (Pairing.served, data.cell.apart),
        ]
        for pairing, reference in found:
            if reference != data.cell and reference in cells and cells[reference].scored:
                yield Pair(pairing, data, cells[reference])


def _counterpart(
    cell: CellKey, quant: str, cells: Mapping[CellKey, CellData], far: Collection[CellKey]
) -> CellKey:
    """The cell of mode `quant` that is equal but for the mode.

    Where each mode has one setting, but for cells `far` behind, these two are a pair: a hopeless
    row must not take them apart by making its setting a variant. Confounds name the setting.
    """
    exact = replace(cell, quant=quant)
    if exact in cells:
        return exact
    modes = [
        [c for c in cells if replace(c, variant=cell.variant) == one and c not in far]
        for one in (cell, exact)
    ]
    return modes[1][0] if modes[0] == [cell] and len(modes[1]) == 1 else exact


def common_seeds(pair: Pair) -> tuple[list[Scored], list[Scored]]:
    """The scored seeds of both, seed by seed; a bare base, which has none, stands for each."""
    reference = {scored.seed: scored for scored in pair.reference.scored}
    if pair.reference.cell.base:
        return list(pair.subject.scored), [pair.reference.scored[0]] * len(pair.subject.scored)
    shared = [scored for scored in pair.subject.scored if scored.seed in reference]
    return shared, [reference[scored.seed] for scored in shared]


def tested_pair(pair: Pair, compared: Compared, split: str) -> Tested | None:
    """Subject minus reference on `split`; None where they share no seed or no item."""
    subjects, references = common_seeds(pair)
    both = [*subjects, *references]
    kind = "test", compared.measure, compared.margin

    def made() -> Tested | None:
        joined = join_scored(both, compared.study, split) if subjects else None
        return compare_joined(joined, compared.measure, compared.margin) if joined else None

    return kept(items_key(kind, both, compared.study, split), made)


def study_spreads(
    found: Iterable[Pair], compared: Compared, split: str, far: Collection[CellKey]
) -> SeedSpreads:
    """What the pairs with several seeds show of the spread between seeds, each pair once."""
    study, measure, shown = compared.study, compared.measure, []
    for pair in {frozenset((p.subject.cell, p.reference.cell)): p for p in found}.values():
        subjects, references = common_seeds(pair)
        if len(subjects) > 1:
            components = _components([*subjects, *references], study, split, measure)
            if components:
                shown.append((pair.subject.cell, pair.reference.cell, components))
    return seed_spreads(shown, far, study.decide, measure, compared.margin)


def _components(
    both: Sequence[Scored], study: Study, split: str, measure: Measure
) -> Components | None:
    def made() -> Components | None:
        joined = join_scored(both, study, split)
        return seed_components(joined, measure) if joined else None

    return kept(items_key(("components", measure), both, study, split), made)


def compare_all(
    found: Sequence[Pair],
    compared: Compared,
    far: Collection[CellKey],
    choices: Callable[[Pair], int],
) -> tuple[Comparison, ...]:
    """Comparisons on test items, corrected for their number by Holm's method (1979).

    Pairs of one kind share their spread between seeds, those of cells `far` behind left out.
    `choices` says of how many cells a pair's reference is the best, by seeds that the pair is
    tested on. Two families are corrected apart: 'there is a difference' and 'it is no worse than
    the margin'.
    """
    spreads = study_spreads(found, compared, "test", far)
    held = _held(found, compared)
    known = [
        (pair, spreads.of(apart.tested, pair.subject.cell, pair.reference.cell))
        for pair, apart in zip(found, held, strict=True)
        if apart is not None
    ]
    # With one seed all verdicts are about these very adapters, and test items chose none.
    factors = [
        choice_factor(choices(pair)) if result.difference.seeds > 1 else 1.0
        for pair, result in known
    ]
    differing = holm([
        min(1.0, factor * result.p_value)
        for (_, result), factor in zip(known, factors, strict=True)
    ])  # fmt: skip
    within = holm_hopeful([result.p_margin for _, result in known])
    corrected = [(p or 0.0, q or 0.0) for p, q in zip(differing, within, strict=True)]
    shown = [apart for apart in held if apart is not None]
    return tuple(
        _comparison(pair, result, compared.measure, both, apart, len(known))
        for (pair, result), both, apart in zip(known, corrected, shown, strict=True)
    )


def _comparison(
    pair: Pair,
    tested: Tested,
    measure: Measure,
    corrected: tuple[float, float],
    apart: _Apart,
    comparisons: int,
) -> Comparison:
    """`corrected` holds Holm's p for a difference, and for the margin."""
    deviation = tested.two_way.components.seed_spread_raw
    return Comparison(
        pairing=pair.pairing,
        subject=pair.subject.cell,
        reference=pair.reference.cell,
        measure=measure,
        difference=tested.difference,
        p_value=tested.p_value,
        p_holm=corrected[0],
        p_margin_holm=corrected[1],
        verdict=verdict_of(tested, measure, *corrected),
        subject_only_right=tested.subject_only_right,
        reference_only_right=tested.reference_only_right,
        judged=tested.judged,
        divergence_nats=apart.divergence_nats,
        smaller_than_seed_spread=(
            # What is left of rounding is no spread.
            None if deviation is None else abs(tested.difference.value) < deviation - ROUNDING
        ),
        detectable=tested.detectable(),
        detectable_corrected=tested.detectable(comparisons),
        confounds=apart.confounds,
    )


def verdict_of(tested: Tested, measure: Measure, p_holm: float, p_margin_holm: float) -> Verdict:
    """What the corrected tests establish; the direction is the estimate's."""
    gain = measure.sign * tested.difference.value
    within = p_margin_holm < SIGNIFICANT
    if p_holm < SIGNIFICANT and gain > 0:
        return Verdict.better
    if p_holm < SIGNIFICANT:
        return Verdict.worse_within if within else Verdict.worse
    return Verdict.no_worse if within else Verdict.undecided


@dataclass(frozen=True)
class _Apart:
    """What a pair shows by itself, before it is corrected for others."""

    tested: Tested
    divergence_nats: float | None
    confounds: tuple[str, ...]


def _held(found: Sequence[Pair], compared: Compared) -> list[_Apart | None]:
    """Of each pair on test items; None where nothing is common.

    Pairs of equal settings in all modes go one after another, as they share files that are then
    read once.
    """
    places: dict[CellKey, list[int]] = {}
    for place, pair in enumerate(found):
        places.setdefault(replace(pair.subject.cell, quant=""), []).append(place)
    order = [place for own in places.values() for place in own]
    held = map_kept(lambda place: _apart(found[place], compared), order)
    return [apart for _, apart in sorted(zip(order, held, strict=True), key=itemgetter(0))]


def _apart(pair: Pair, compared: Compared) -> _Apart | None:
    tested = tested_pair(pair, compared, "test")
    if tested is None:
        return None
    confounds = confounds_of(pair.pairing, *common_seeds(pair), tested.difference.items)
    return _Apart(tested, _divergence(pair, compared.study), confounds)


def _divergence(pair: Pair, study: Study) -> float | None:
    """Mean over seeds; None where a file is missing or of other tokens."""
    values = []
    for subject, reference in zip(*common_seeds(pair), strict=True):
        value = _divergence_of_seed(subject.evaluation, reference.evaluation, study)
        if value is None:
            return None
        values.append(value)
    return sum(values) / len(values) if values else None


def _divergence_of_seed(
    subject: EvaluationRecord, reference: EvaluationRecord, study: Study
) -> float | None:
    first, second = (study.distributions.get(one.identity) for one in (reference, subject))
    if first is None or second is None:
        return None
    # They were held against these digests where they were collected.
    digests = reference.distributions_sha256, subject.distributions_sha256
    key = None if None in digests else ("divergence", *digests)
    return kept(key, lambda: mean_divergence_nats(first, second))
