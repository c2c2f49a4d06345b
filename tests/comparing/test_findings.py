from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lorascope.adapters.kinds import method_of
from lorascope.comparing.cells import base_cell
from lorascope.comparing.findings import compare
from lorascope.comparing.results import Measure, Pairing, Verdict
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost, DecideConfig
from lorascope.records import EvaluationRecord, ItemResult, SplitScore, Status, Study
from tests.study_factory import Trial, example_study, lora_dials, make_study


def planted(
    shares: dict[str, float], seeds: int, items: int = 400, seed_spread: float = 0.0, draw: int = 0
) -> Study:
    """Modes at rank 8 whose true accuracy is `shares`; items differ in hardness, seeds in luck."""
    rng = np.random.default_rng(draw)
    study = make_study(
        [Trial(quant, seed=seed) for quant in shares for seed in range(seeds)], items=items
    )
    hardness = {split: rng.normal(0, 0.25, items) for split in ("validation", "test")}
    scored = {}
    evaluations = []
    for evaluation in study.evaluations:
        share = shares[evaluation.quant] if evaluation.key else 0.1
        luck = rng.normal(0, seed_spread)
        splits = {
            split: rng.random(items) < np.clip(share + luck + hardness[split], 0, 1)
            for split in hardness
        }
        scored[evaluation.identity] = {s: _items(s, right) for s, right in splits.items()}
        evaluations.append(_with_scores(evaluation, splits))
    return replace(study, items=scored, evaluations=evaluations)


def _items(split: str, right: np.ndarray) -> list[ItemResult]:
    return [
        ItemResult(f"{split}{index}", "p", f"t{index}", bool(correct), 1.0, 1)
        for index, correct in enumerate(right)
    ]


def _with_scores(record: EvaluationRecord, splits: dict[str, np.ndarray]) -> EvaluationRecord:
    scores = {s: SplitScore(len(r), float(r.mean()), 0.01, 1.0) for s, r in splits.items()}
    return replace(record, splits=scores)


def verdicts(findings: Findings, pairing: Pairing) -> dict[str, Verdict]:
    return {c.subject.quant: c.verdict for c in findings.comparisons if c.pairing is pairing}


def test_a_planted_loss_of_ten_points_in_one_mode_is_found() -> None:
    shares = {"fp16": 0.7, "int8": 0.7, "nf4": 0.6, "nf4_dq": 0.7}
    found = verdicts(compare(planted(shares, seeds=3)), Pairing.mode)
    assert found["nf4"] is Verdict.worse
    assert found["int8"] is not Verdict.worse
    assert found["nf4_dq"] is not Verdict.worse


@pytest.mark.slow
def test_the_same_configuration_under_two_names_is_never_called_better_beyond_chance() -> None:
    wrong = 0
    for draw in range(100):
        shares = {"fp16": 0.7, "int8": 0.7}
        findings = compare(planted(shares, seeds=5, items=200, seed_spread=0.02, draw=draw))
        wrong += verdicts(findings, Pairing.mode)["int8"] in (Verdict.better, Verdict.worse)
    # 5 % of 100 is 5, with a standard deviation of 2.2.
    assert wrong <= 9


def test_with_one_seed_the_spread_is_unknown_and_a_threat_says_so() -> None:
    findings = compare(planted({"fp16": 0.7, "nf4": 0.7}, seeds=1))
    assert all(score.accuracy and score.accuracy.seed_deviation is None for score in findings.cells)
    assert all(c.smaller_than_seed_spread is None for c in findings.comparisons)
    assert any("seed to seed is unknown" in threat for threat in findings.threats)


def test_seed_spread_widens_a_cells_interval() -> None:
    calm = compare(planted({"fp16": 0.7, "nf4": 0.7}, seeds=4))
    wild = compare(planted({"fp16": 0.7, "nf4": 0.7}, seeds=4, seed_spread=0.08))
    widths = [
        findings.cells[-1].accuracy.high - findings.cells[-1].accuracy.low  # type: ignore[union-attr]
        for findings in (calm, wild)
    ]
    assert widths[1] > 1.5 * widths[0]


def test_every_mode_rank_and_base_pair_is_compared_once() -> None:
    study = make_study([Trial(q, rank) for q in ("fp16", "int8") for rank in (1, 8)])
    findings = compare(study)
    pairs = [(c.pairing, c.subject, c.reference) for c in findings.comparisons]
    assert len(pairs) == len(set(pairs))
    kinds = [pairing for pairing, _, _ in pairs]
    assert (kinds.count(Pairing.mode), kinds.count(Pairing.rank), kinds.count(Pairing.base)) == (
        2, 2, 4,
    )  # fmt: skip


def test_flips_count_both_ways_and_add_up_to_the_difference() -> None:
    findings = compare(example_study())
    for comparison in findings.comparisons:
        won, lost = comparison.subject_only_right, comparison.reference_only_right
        assert won is not None
        assert lost is not None
        assert comparison.judged
        assert comparison.difference.value == pytest.approx((won - lost) / comparison.judged)


def test_a_study_scored_by_loss_is_compared_by_loss() -> None:
    trials = [
        Trial("fp16", accuracy=None, loss_nats=0.30),
        Trial("nf4", accuracy=None, loss_nats=0.9),
    ]
    findings = compare(make_study(trials, None))
    assert findings.measure is Measure.loss_nats
    mode = next(c for c in findings.comparisons if c.pairing is Pairing.mode)
    assert mode.difference.value == pytest.approx(0.6)
    assert mode.verdict is Verdict.worse
    assert mode.subject_only_right is None


def test_the_cheapest_that_is_no_worse_ships() -> None:
    shares = {"fp16": 0.7, "int8": 0.7, "nf4": 0.5, "nf4_dq": 0.45}
    study = planted(shares, seeds=3, items=2000)
    decision = compare(study).decision
    assert decision.reference is not None
    assert decision.reference.quant == "fp16"
    assert decision.recommended is not None
    assert decision.recommended.quant == "int8"
    assert decision.settled
    assert decision.trial is not None
    assert decision.trial.startswith("int8")


def test_too_few_items_leave_the_reference_and_say_how_many_would_settle_it() -> None:
    study = planted({"fp16": 0.7, "nf4": 0.72}, seeds=1, items=60)
    decision = compare(study).decision
    assert decision.recommended == decision.reference
    assert not decision.settled
    (left,) = decision.open
    assert left.cell.quant == "nf4"
    assert left.items_needed is not None
    assert left.items_needed > 60
    assert decision.projection is not None
    assert not decision.projection.seed_spread_known


def test_what_is_said_to_settle_it_does() -> None:
    few = planted({"fp16": 0.7, "nf4": 0.7}, seeds=1, items=120)
    (left,) = compare(few).decision.open
    assert left.items_needed is not None
    assert left.difference is not None
    # The same items again and again keep the estimate and shrink its error.
    times = -(-left.items_needed // 120)
    more = {
        identity: {
            split: [
                replace(item, item=f"{item.item} {copy}") for copy in range(times) for item in items
            ]
            for split, items in splits.items()
        }
        for identity, splits in few.items.items()
    }
    assert compare(replace(few, items=more)).decision.recommended == left.cell


def test_selection_reads_validation_and_never_test() -> None:
    study = planted({"fp16": 0.7, "nf4": 0.7}, seeds=1, items=400)
    spoiled = {
        identity: {**splits, "test": [replace(item, correct=False) for item in splits["test"]]}
        for identity, splits in study.items.items()
    }
    before, after = compare(study).decision, compare(replace(study, items=spoiled)).decision
    assert (before.recommended, before.reference, before.candidates) == (
        after.recommended, after.reference, after.candidates,
    )  # fmt: skip


def test_a_cell_with_a_failed_seed_cannot_ship_and_says_why() -> None:
    trials = [
        Trial("fp16", seed=0), Trial("fp16", seed=1), Trial("nf4", seed=0),
        Trial("nf4", seed=1, status=Status.diverged, reason="loss is nan"),
    ]  # fmt: skip
    decision = compare(make_study(trials)).decision
    candidate = next(c for c in decision.candidates if c.cell.quant == "nf4")
    assert candidate.ineligible == "seed 1 diverged (loss is nan)"
    assert decision.recommended is not None
    assert decision.recommended.quant == "fp16"


def test_without_the_declared_reference_mode_another_stands_in_and_is_named() -> None:
    decision = compare(make_study([Trial("int8"), Trial("nf4")])).decision
    assert decision.reference is not None
    assert decision.reference.quant == "int8"
    assert not decision.reference_is_declared


def test_nothing_scored_gives_no_recommendation() -> None:
    findings = compare(make_study([Trial("nf4", status=Status.killed, reason="SIGKILL")], None))
    assert findings.decision.recommended is None
    assert findings.decision.trial is None
    assert not findings.decision.settled


def test_cost_decides_between_equals() -> None:
    study = make_study([Trial("fp16", 8), Trial("nf4", 8)], items=2000)
    by_adapter = replace(study, decide=DecideConfig(cost=Cost.adapter_bytes))
    # Both adapters weigh the same, so nothing is cheaper than the reference.
    decision = compare(by_adapter).decision
    assert decision.recommended == decision.reference


def test_money_and_energy_follow_from_the_stated_rates() -> None:
    rule = DecideConfig(price_per_hour=3.0, power_watts=200.0)
    study = replace(make_study([Trial("fp16")]), decide=rule)
    costs = compare(study).cells[-1].costs
    assert costs[Cost.train_seconds] == 11.6
    assert costs[Cost.money] == pytest.approx(3.0 * 11.6 / 3600)
    assert costs[Cost.energy] == pytest.approx(200 * 11.6 / 3600)


def test_effective_scale_divides_by_the_rank_or_by_its_root() -> None:
    scale = method_of("lora").scale
    assert scale is not None
    assert scale(lora_dials(16, 32)) == 2
    assert scale(lora_dials(16, 32, rslora=True)) == 8


def test_unequal_scale_versions_and_batch_sizes_are_named() -> None:
    study = make_study([Trial("fp16", 4), Trial("fp16", 16), Trial("int8", 4)])
    trial = study.trials[2]
    newer = {**trial.provenance.versions, "torch": "2.14.0"}
    made = replace(trial.provenance, versions=newer, shards=2, placed=3)
    study.trials[2] = replace(trial, provenance=made)
    findings = compare(study)
    rank = next(c for c in findings.comparisons if c.pairing is Pairing.rank)
    assert any(text.startswith("effective scale") for text in rank.confounds)
    mode = next(c for c in findings.comparisons if c.pairing is Pairing.mode)
    assert any("torch 2.14.0 / 2.13.0" in text for text in mode.confounds)
    assert "trained on other numbers of devices (2 / 1)" in mode.confounds
    placed = "trained on other numbers of devices that layers are placed over (3 / 1)"
    assert placed in mode.confounds


def test_the_same_study_gives_the_same_findings() -> None:
    assert compare(example_study()) == compare(example_study())


def test_frontier_points_are_scored_cells_with_probabilities() -> None:
    findings = compare(example_study())
    points = findings.frontiers["serving_bytes"]
    assert [point.cost for point in points] == sorted(point.cost for point in points)
    assert points[0].on_frontier
    assert all(0 <= point.probability <= 1 for point in points)
    assert base_cell("fp16") in [point.cell for point in points]
