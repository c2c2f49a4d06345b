"""Studies that are not as they should be: what is unknown stays unknown, nothing is made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorascope.comparing.divergence import mean_divergence_nats
from lorascope.comparing.estimates import compare_joined, with_shared_seed_spread
from lorascope.comparing.findings import compare
from lorascope.comparing.joining import JoinedItems
from lorascope.comparing.results import Findings, Measure, Pairing, Verdict
from lorascope.config import Cost, DecideConfig
from lorascope.records import Status, Study
from lorascope.reporting.write import report_files
from tests.study_factory import Trial, make_study


def cell(findings: Findings, quant: str, rank: int = 8):  # type: ignore[no-untyped-def]
    return next(s for s in findings.cells if (s.cell.quant, s.cell.rank) == (quant, rank))


def two_settings() -> Study:
    """Two trainings of each adapter that differ in the learning rate alone."""
    study = make_study([Trial(q, accuracy=a) for q in ("fp16", "nf4") for a in (0.6, 0.9)])
    rates = [1e-4, 1e-3, 1e-4, 1e-3]
    trials = [
        replace(trial, settings={**trial.settings, "train": {"learning_rate": rate}})
        for trial, rate in zip(study.trials, rates, strict=True)
    ]
    return replace(study, trials=trials)


def test_two_learning_rates_are_two_configurations_and_never_two_seeds() -> None:
    findings = compare(two_settings())
    adapters = [s for s in findings.cells if not s.cell.is_base]
    assert sorted(s.cell.variant for s in adapters) == [
        "learning_rate=0.0001", "learning_rate=0.0001", "learning_rate=0.001",
        "learning_rate=0.001",
    ]  # fmt: skip
    modes = [c for c in findings.comparisons if c.pairing is Pairing.mode]
    assert all(c.subject.variant == c.reference.variant for c in modes)
    assert all(abs(c.difference.value) < 0.01 for c in modes)
    assert "learning_rate=0.001" in report_files(two_settings(), findings)["report.md"].decode()


def test_a_failed_declared_rank_is_replaced_within_its_mode_and_named() -> None:
    study = make_study(
        [
            Trial("nf4", 16, accuracy=0.85),
            Trial("fp16", 16, status=Status.out_of_memory, reason="16 GB"),
            Trial("fp16", 8, accuracy=0.93),
        ]
    )
    decision = compare(replace(study, decide=DecideConfig(reference_rank=16))).decision
    assert decision.reference is not None
    assert (decision.reference.quant, decision.reference.rank) == ("fp16", 8)
    assert not decision.reference_is_declared
    assert not decision.settled
    threats = compare(replace(study, decide=DecideConfig(reference_rank=16))).threats
    assert any("declared reference (fp16, rank 16)" in threat for threat in threats)


def test_what_was_never_run_leaves_the_answer_unsettled() -> None:
    study = make_study([Trial("fp16")], missing=["nf4-r0008-a0016-s0-0123456789"])
    decision = compare(study).decision
    assert [c.cell.quant for c in decision.unknown] == ["nf4"]
    assert not decision.settled


def test_what_diverged_cannot_ship_and_leaves_nothing_open() -> None:
    study = make_study([Trial("fp16"), Trial("nf4", status=Status.diverged, reason="nan")])
    assert compare(study).decision.settled


def test_unknown_costs_leave_the_answer_unsettled() -> None:
    study = make_study([Trial("fp16"), Trial("nf4")], validation_items=2000)
    by_peak = replace(study, decide=DecideConfig(cost=Cost.training_peak_bytes))
    decision = compare(by_peak).decision
    assert len(decision.unknown) == 1
    assert not decision.settled


def test_a_failed_adapter_has_no_serving_cost() -> None:
    study = make_study([Trial("fp16"), Trial("nf4", status=Status.out_of_memory, reason="8 GB")])
    assert cell(compare(study), "nf4").cost.serving_bytes is None


def test_the_seconds_of_a_resumed_training_are_not_a_cost() -> None:
    study = make_study([Trial("fp16"), Trial("nf4")])
    result = study.trials[1].result
    assert result is not None
    resumed = replace(result, resumed_at_step=190, train_seconds=0.6)
    study.trials[1] = replace(study.trials[1], result=resumed)
    assert cell(compare(study), "nf4").cost.train_seconds is None


def test_a_divergence_that_is_not_a_number_is_unknown(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.log(np.full((2, 4), 0.25, dtype=np.float32)))
    np.save(tmp_path / "q.npy", np.full((2, 4), np.nan, dtype=np.float32))
    assert mean_divergence_nats(tmp_path / "p.npy", tmp_path / "q.npy") is None


def test_a_loss_that_is_not_finite_is_a_failure_and_never_settles() -> None:
    trials = [Trial("fp16", accuracy=None), Trial("nf4", accuracy=None, loss_nats=float("nan"))]
    study = make_study(trials, None)
    findings = compare(study)
    assert cell(findings, "nf4").complete is False
    assert not findings.decision.settled
    page = report_files(study, findings)["report.md"].decode()
    assert "its loss is not finite" in page
    assert "every declared trial has a score" not in page


@pytest.mark.parametrize("items", [1, 2, 3])
@pytest.mark.parametrize("accuracy", [1.0, None])
def test_few_items_crash_nothing_and_settle_nothing(items: int, accuracy: float | None) -> None:
    trials = [Trial(quant, accuracy=accuracy) for quant in ("fp16", "nf4")]
    bases = None if accuracy is None else 0.0
    study = make_study(trials, bases, items=items, validation_items=items)
    findings = compare(study)
    assert report_files(study, findings)
    assert all(
        c.verdict is Verdict.undecided for c in findings.comparisons if c.pairing is Pairing.mode
    )


def test_every_item_changing_alike_in_few_clusters_has_an_interval() -> None:
    joined = JoinedItems(
        np.stack([np.ones(10), np.zeros(10)]), np.ones((2, 10)), np.ones(10),
        np.repeat(np.arange(2), 5),
    )  # fmt: skip
    tested = compare_joined(joined, Measure.accuracy, 0.05)
    assert tested is not None
    assert tested.difference.value == 1
    assert tested.difference.low < 0.9
    assert tested.p_value > 0.05


def test_a_shared_seed_spread_proves_no_equality_from_identical_answers() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(8), 5)
    same = (rng.random((3, 40)) < 0.7).astype(float)
    other = (rng.random((6, 40)) < 0.7).astype(float)
    alike = JoinedItems(np.concatenate([same, same]), np.ones((6, 40)), np.ones(40), clusters)
    unlike = JoinedItems(other, np.ones((6, 40)), np.ones(40), clusters)
    raw = [compare_joined(joined, Measure.accuracy, 0.05) for joined in (alike, unlike)]
    shared = with_shared_seed_spread(raw, ["r", "r"], Measure.accuracy, 0.05)
    assert shared[0] == raw[0]
    assert shared[0] is not None
    assert shared[0].p_margin > 0.05


def test_one_common_seed_takes_the_spread_of_comparisons_with_more() -> None:
    rng = np.random.default_rng(1)
    tests = []
    for seeds, shift in ((3, 0.1), (3, 0.1), (1, 0.0)):
        luck = rng.normal(0, shift, (2 * seeds, 1))
        right = (rng.random((2 * seeds, 400)) < 0.7 + luck).astype(float)
        joined = JoinedItems(right, np.ones_like(right), np.ones(400), None)
        tests.append(compare_joined(joined, Measure.accuracy, 0.05))
    alone, shared = tests[2], with_shared_seed_spread(tests, "abc", Measure.accuracy, 0.05)[2]
    assert alone is not None
    assert shared is not None
    assert shared.difference.standard_error > 1.5 * alone.difference.standard_error


def test_the_best_rank_has_all_its_seeds() -> None:
    trials = [Trial("fp16", 8, seed=seed, accuracy=0.8) for seed in (0, 1)]
    trials += [
        Trial("fp16", 64, seed=0, status=Status.killed, reason="SIGKILL"),
        Trial("fp16", 64, seed=1, accuracy=0.95),
    ]
    ranks = [c for c in compare(make_study(trials)).comparisons if c.pairing is Pairing.rank]
    assert {c.reference.rank for c in ranks} == {8}


def test_detectable_differences_know_how_few_seeds_there_are() -> None:
    seeds = [Trial(q, seed=s, accuracy=0.8 + 0.03 * s * (q == "nf4")) for q in ("fp16", "nf4")
             for s in range(3)]  # fmt: skip
    comparison = next(
        c for c in compare(make_study(seeds)).comparisons if c.pairing is Pairing.mode
    )
    half_width = (comparison.difference.high - comparison.difference.low) / 2
    assert comparison.detectable > half_width
    assert comparison.detectable_corrected > comparison.detectable


def test_candidates_are_worse_only_after_correction_and_beyond_the_margin() -> None:
    study = make_study(
        [Trial("fp16", accuracy=0.90), Trial("nf4", accuracy=0.60), Trial("int8", accuracy=0.90)],
        validation_items=2000,
    )
    found = {c.cell.quant: c.verdict for c in compare(study).decision.candidates}
    assert found == {"fp16": None, "nf4": Verdict.worse, "int8": Verdict.no_worse}
