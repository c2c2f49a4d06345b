"""What training did to pairs: margins over the bare base, and chosen replies that fall."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lorascope.comparing.findings import compare
from lorascope.comparing.preferences import preference_scores
from lorascope.comparing.results import Measure, Pairing
from lorascope.records import ItemResult, Study
from lorascope.reporting.tables.preferences import preference_table
from tests.study_factory import Trial, make_study

CHOSEN, REJECTED = 20.0, 22.0
"""Losses of the two replies under the bare base, in nats a reply."""


def pair(item: ItemResult, chosen: float, rejected: float, is_base: bool) -> ItemResult:
    margin = (rejected - chosen) - (REJECTED - CHOSEN)
    return replace(
        item, cluster=None, correct=0.5 if is_base else margin > 0, loss_nats=chosen,
        rejected_loss_nats=rejected, margin_nats=None if is_base else margin,
    )  # fmt: skip


def paired(moved: dict[int, tuple[float, float]], every: int = 10) -> Study:
    """Trials by rank: how much their chosen and rejected replies gained in nats; one pair in
    `every` goes the other way."""
    study = make_study([Trial("fp16", rank=rank) for rank in moved], items=50, validation_items=50)
    items = {}
    for evaluation in study.evaluations:
        key = evaluation.key
        gains = moved[int(str(key.dials["rank"]))] if key else (0.0, 0.0)
        told = study.items[evaluation.identity]
        items[evaluation.identity] = {
            split: [
                pair(item, CHOSEN - a, REJECTED - b, key is None)
                for number, item in enumerate(own)
                for a, b in [gains if number % every else gains[::-1]]
            ]
            for split, own in told.items()
        }
    data = replace(study.data, scoring="preference")
    return replace(study, items=items, data=data)


def test_gains_are_means_over_pairs_and_falling_chosen_replies_are_told() -> None:
    study = paired({2: (1.0, -1.0), 8: (-2.0, -6.0)})
    kept, fell = preference_scores(study, Measure.accuracy)
    # What moved the other way ends in a tie, or behind.
    assert (kept.likelier_share, fell.likelier_share) == (0.9, 0.9)
    # Nine pairs in ten gain 2 nats of margin, one loses as much.
    assert kept.margin_nats == pytest.approx(0.9 * 2 - 0.1 * 2)
    assert kept.chosen_gain_nats == pytest.approx(0.9 - 0.1)
    assert kept.rejected_gain_nats == pytest.approx(-0.8)
    assert not kept.is_displaced
    assert fell.chosen_gain_nats == pytest.approx(-0.9 * 2 - 0.1 * 6)
    assert fell.is_displaced
    findings = compare(study)
    (told,) = [threat for threat in findings.threats if "less likely" in threat]
    assert "In 1 of 2 configurations" in told
    assert "up to 2.4 nats a reply" in told
    assert [row.is_displaced for row in preference_table(study, findings).rows] == [False, True]


def test_a_reply_that_fell_by_chance_is_not_told_to_have_fallen() -> None:
    """Of ten pairs four rise by 2 nats, which six that fall by 1.5 outweigh: within one error."""
    study = paired({2: (-1.5, -3.0)})
    items = {
        identity: {
            split: [
                replace(item, loss_nats=CHOSEN - 2)
                if item.margin_nats is not None and number % 10 in (1, 3, 5, 7)
                else item
                for number, item in enumerate(own)
            ]
            for split, own in splits.items()
        }
        for identity, splits in study.items.items()
    }
    (score,) = preference_scores(replace(study, items=items), Measure.accuracy)
    gains = [-3.0, *([-1.5] * 5), *([2.0] * 4)] * 5
    assert score.chosen_gain_nats == pytest.approx(np.mean(gains))
    assert score.chosen_gain_nats < 0 < score.margin_nats
    error = np.std(gains, ddof=1) / np.sqrt(50)
    half = stats.t.ppf(0.975, 49) * error
    assert score.chosen_gain_interval == pytest.approx(
        (np.mean(gains) - half, np.mean(gains) + half)
    )
    assert not score.is_displaced


def test_a_trial_is_held_against_guessing_and_not_against_which_reply_was_likelier() -> None:
    """The base's chosen replies are all the likelier ones: moving pairs at random beats it as
    little as it beats a base whose are not."""
    for every, gain, shown in ((2, 0.0, False), (10, 0.4, True)):
        findings = compare(paired({2: (1.0, -1.0)}, every))
        (own,) = findings.decision.gains
        assert own.difference.value == pytest.approx(gain)
        assert own.shown is shown
        (told,) = [one for one in findings.comparisons if one.pairing is Pairing.base]
        assert told.difference.value == pytest.approx(gain)
        assert told.difference.low < gain < told.difference.high
        # Each of 50 pairs is better or worse than a tie.
        lost = 50 // every
        assert (told.subject_only_right, told.reference_only_right) == (50 - lost, lost)


def test_other_data_have_no_preferences() -> None:
    study = make_study([Trial("fp16")])
    assert preference_scores(study, Measure.accuracy) == []
    assert not preference_table(study, compare(study)).rows


def test_pairs_of_one_prompt_count_as_one_draw_unless_a_cluster_is_named() -> None:
    """Fifty pairs of ten prompts, five each, which move together."""
    study = paired({2: (1.0, -1.0)}, every=5)

    def shared(told: Study, cluster: bool) -> Study:
        items = {
            identity: {
                split: [
                    replace(
                        item, prompt_sha256=f"p{n % 10}", cluster=f"c{n % 10}" if cluster else None
                    )
                    for n, item in enumerate(own)
                ]
                for split, own in splits.items()
            }
            for identity, splits in told.items.items()
        }
        return replace(told, items=items)

    alone, by_prompt = compare(study), compare(shared(study, cluster=False))
    by_cluster = compare(shared(study, cluster=True))
    estimates = [
        found.score(found.decision.gains[0].cell).accuracy
        for found in (alone, by_prompt, by_cluster)
    ]
    assert [e.clusters for e in estimates if e] == [None, 10, 10]
    widths = [e.high - e.low for e in estimates if e]
    assert widths[1] == widths[2] > 1.5 * widths[0]
    assert any("50 test pairs are 10 prompts" in threat for threat in by_prompt.threats)
