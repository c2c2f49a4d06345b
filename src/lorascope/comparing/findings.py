"""All that is said about a study's scores, from its records alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from lorascope.comparing.cells import Compared, gather, study_measure
from lorascope.comparing.coverage import coverage
from lorascope.comparing.decision import decide, fresh_score
from lorascope.comparing.forgetting import forgetting
from lorascope.comparing.frontiers import frontiers
from lorascope.comparing.groups import group_scores
from lorascope.comparing.pairs import Pair, compare_all, pairs
from lorascope.comparing.reference import best_by_form, far_behind, near_best
from lorascope.comparing.results import (
    CellKey,
    CellScore,
    Comparison,
    Measure,
    Pairing,
    Power,
    Reach,
)
from lorascope.comparing.ruling import Decision, Findings
from lorascope.comparing.threats import threats
from lorascope.comparing.token_prices import token_prices
from lorascope.comparing.ways import served_ways
from lorascope.machine.forks import Forked
from lorascope.records import Study
from lorascope.statistics.power import (
    detectable_paired_difference,
    detectable_unpaired_difference,
    powered_paired_difference,
    powered_unpaired_difference,
)

ASSUMED_DISCORDANT_SHARES = (0.05, 0.10, 0.20, 0.30)


def compare(study: Study) -> Findings:
    """Cells, comparisons, the decision and what speaks against them.

    The same study gives the same findings: resampling has a fixed seed.
    """
    measure = study_measure(study)
    chance = study.data.splits["test"].chance_accuracy if measure is Measure.accuracy else None
    compared = Compared.of(study, measure, gather(study, measure))
    # No decision rests on them: another process finds them meanwhile.
    on_frontiers = Forked(lambda: frontiers(compared))
    scores = tuple(compared.scores.values())
    decision = decide(compared)
    reference_quant = (
        decision.reference.quant if decision.reference else study.decide.reference_quant
    )
    far = far_behind(compared, decision.reference)
    found, direct = _asked_pairs(compared, decision, reference_quant, far)

    def choices(pair: Pair) -> int:
        if pair.pairing is Pairing.decision:
            return sum(candidate.verdict is not None for candidate in decision.candidates) + 1
        if pair.pairing is Pairing.rank:
            return near_best(scores, pair.reference.cell, compared)
        return 1

    comparisons = compare_all(found, compared, far, choices)
    decision = replace(
        decision,
        test=_of_pair(comparisons, direct),
        fresh=fresh_score(compared) if decision.recommended and not decision.settling else None,
    )
    return Findings(
        measure=measure,
        cells=scores,
        comparisons=comparisons,
        decision=decision,
        frontiers=on_frontiers.result(),
        power=_power(scores, comparisons, measure),
        chance=chance,
        threats=threats(study, scores, comparisons, decision, chance),
        coverage=tuple(coverage(study)),
        ways=served_ways(compared, reference_quant, far),
        ways_by_loss=(
            served_ways(replace(compared, measure=Measure.loss_nats), reference_quant, far)
            if measure is Measure.accuracy
            else ()
        ),
        forgetting=forgetting(compared),
        groups=group_scores(compared, decision.reference, decision.recommended),
        token_prices=token_prices(study, scores),
    )


def _asked_pairs(
    compared: Compared, decision: Decision, reference_quant: str, far: frozenset[CellKey]
) -> tuple[list[Pair], Pair | None]:
    """All pairs that are tested, and that of what is recommended with the reference."""
    cells = compared.cells
    found = list(pairs(cells, reference_quant, best_by_form(compared), far))
    direct = _direct(found, decision)
    if direct is None and decision.recommended and decision.recommended != decision.reference:
        assert decision.reference is not None
        extra = Pair(Pairing.decision, cells[decision.recommended], cells[decision.reference])
        found.append(extra)
        direct = extra
    return found, direct


def _direct(found: Sequence[Pair], decision: Decision) -> Pair | None:
    """The pair that holds the recommended cell against the reference, where there is one."""
    wanted = decision.recommended, decision.reference
    same = [pair for pair in found if (pair.subject.cell, pair.reference.cell) == wanted]
    return same[0] if same else None


def _of_pair(comparisons: Sequence[Comparison], pair: Pair | None) -> Comparison | None:
    if pair is None:
        return None
    wanted = pair.pairing, pair.subject.cell, pair.reference.cell
    same = [c for c in comparisons if (c.pairing, c.subject, c.reference) == wanted]
    return same[0] if same else None


def _power(
    scores: Sequence[CellScore], comparisons: Sequence[Comparison], measure: Measure
) -> Power | None:
    estimates = [estimate for score in scores if (estimate := score.test(measure))]
    if not estimates:
        return None
    items = estimates[0].items
    between = [c.detectable for c in comparisons if c.pairing is Pairing.mode]
    corrected = [c.detectable_corrected for c in comparisons if c.pairing is Pairing.mode]
    after = statistics.median(between) if between else None
    before: dict[str, Reach] = {}
    unpaired = None
    if measure is Measure.accuracy:
        before = {
            f"{100 * share:g} %": Reach(
                detectable_paired_difference(share, items), powered_paired_difference(share, items)
            )
            for share in ASSUMED_DISCORDANT_SHARES
            # No difference is larger than the share of answers that differ.
            if powered_paired_difference(share, items) <= share
        }
        middle = statistics.median(estimate.value for estimate in estimates)
        if 0 < middle < 1:
            unpaired = Reach(
                detectable_unpaired_difference(middle, items),
                powered_unpaired_difference(middle, items),
            )
    return Power(
        items=items,
        clusters=estimates[0].clusters,
        measure=measure,
        before=before,
        unpaired=unpaired,
        after=after,
        comparisons=len(comparisons),
        after_corrected=statistics.median(corrected) if corrected else None,
    )
