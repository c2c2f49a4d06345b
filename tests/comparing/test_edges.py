"""Studies that are not as they should be: what is unknown stays unknown, nothing is made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorascope.comparing import estimates
from lorascope.comparing.divergences import mean_divergence_nats
from lorascope.comparing.estimates import compare_joined, with_seed_pool
from lorascope.comparing.findings import compare
from lorascope.comparing.item_columns import JoinedItems
from lorascope.comparing.results import Comparison, Measure, Pairing, Verdict
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost, DecideConfig
from lorascope.records import Status, Study
from lorascope.reporting.catalogue import report_files
from lorascope.statistics.seed_noise import SeedNoise
from lorascope.statistics.seed_pool import pool_seeds
from tests.study_factory import Trial, make_study


def cell(findings: Findings, quant: str, rank: int = 8):  # type: ignore[no-untyped-def]
    return next(s for s in findings.cells if (s.cell.quant, s.cell.dial("rank")) == (quant, rank))


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
    adapters = [s for s in findings.cells if not s.cell.base]
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
    assert (decision.reference.quant, decision.reference.dial("rank")) == ("fp16", 8)
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
    study = make_study([
        *(Trial("fp16", seed=seed) for seed in (0, 1)),
        *(Trial("nf4", seed=seed, status=Status.diverged, reason="nan") for seed in (0, 1)),
    ])  # fmt: skip
    assert compare(study).decision.settled


def test_unknown_costs_leave_the_answer_unsettled() -> None:
    study = make_study([Trial("fp16"), Trial("nf4")], validation_items=2000)
    by_peak = replace(study, decide=DecideConfig(cost=Cost.training_peak_bytes))
    decision = compare(by_peak).decision
    assert len(decision.unknown) == 1
    assert not decision.settled


def test_a_failed_adapter_has_no_serving_cost() -> None:
    study = make_study([Trial("fp16"), Trial("nf4", status=Status.out_of_memory, reason="8 GB")])
    assert Cost.serving_bytes not in cell(compare(study), "nf4").costs


def test_the_seconds_of_a_resumed_training_are_not_a_cost() -> None:
    study = make_study([Trial("fp16"), Trial("nf4")])
    result = study.trials[1].result
    assert result is not None
    resumed = replace(result, resumed_at_step=190, train_seconds=0.6)
    study.trials[1] = replace(study.trials[1], result=resumed)
    assert Cost.train_seconds not in cell(compare(study), "nf4").costs


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


def with_pool(tests: list[estimates.Tested | None]) -> list[estimates.Tested]:
    """Tests of independent pairs of one kind, with the spread that they share."""
    known = [test for test in tests if test]
    ends = [frozenset((place, -1 - place)) for place in range(len(known))]
    pool = pool_seeds([test.two_way.components for test in known], ends)
    return [with_seed_pool(test, pool, Measure.accuracy, 0.05) for test in known]


def test_a_shared_seed_spread_proves_no_equality_from_identical_answers() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(8), 5)
    same = (rng.random((3, 40)) < 0.7).astype(float)
    other = (rng.random((6, 40)) < 0.7).astype(float)
    alike = JoinedItems(np.concatenate([same, same]), np.ones((6, 40)), np.ones(40), clusters)
    unlike = JoinedItems(other, np.ones((6, 40)), np.ones(40), clusters)
    raw = [compare_joined(joined, Measure.accuracy, 0.05) for joined in (alike, unlike)]
    shared = with_pool(raw)
    assert shared[0] == raw[0]
    assert shared[0].p_margin > 0.05


def test_one_common_seed_takes_the_spread_of_comparisons_with_more() -> None:
    rng = np.random.default_rng(1)
    tests = []
    for seeds, shift in ((3, 0.1), (3, 0.1), (1, 0.0)):
        luck = rng.normal(0, shift, (2 * seeds, 1))
        right = (rng.random((2 * seeds, 400)) < 0.7 + luck).astype(float)
        joined = JoinedItems(right, np.ones_like(right), np.ones(400), None)
        tests.append(compare_joined(joined, Measure.accuracy, 0.05))
    alone, shared = tests[2], with_pool(tests)[2]
    assert alone is not None
    assert shared.difference.standard_error > 1.5 * alone.difference.standard_error


def test_the_best_rank_has_all_its_seeds() -> None:
    trials = [Trial("fp16", 8, seed=seed, accuracy=0.8) for seed in (0, 1)]
    trials += [
        Trial("fp16", 64, seed=0, status=Status.killed, reason="SIGKILL"),
        Trial("fp16", 64, seed=1, accuracy=0.95),
    ]
    ranks = [c for c in compare(make_study(trials)).comparisons if c.pairing is Pairing.rank]
    assert {c.reference.dial("rank") for c in ranks} == {8}


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


def of_mode(findings: Findings, quant: str) -> Comparison:
    return next(
        c for c in findings.comparisons if c.pairing is Pairing.mode and c.subject.quant == quant
    )


def with_settings(study: Study, quant: str, **settings: object) -> Study:
    """`study` whose trials of one mode were made with other settings."""
    trials = [
        replace(t, settings={**t.settings, **settings}) if t.key.quant == quant else t
        for t in study.trials
    ]
    return replace(study, trials=trials)


def test_one_collapsed_training_leaves_other_comparisons_decided() -> None:
    """Pooled, its spread made every comparison of the study undecided."""
    trials = [
        Trial(quant, rank, seed=seed, accuracy=0.9 + 0.002 * seed)
        for quant in ("fp16", "int8", "nf4")
        for rank in (4, 16, 64)
        for seed in range(3)
    ]
    collapsed = [
        replace(t, accuracy=0.2) if (t.quant, t.rank, t.seed) == ("nf4", 64, 2) else t
        for t in trials
    ]
    calm, wild = (compare(make_study(some)) for some in (trials, collapsed))
    assert of_mode(calm, "int8").verdict is Verdict.no_worse
    assert of_mode(wild, "int8").verdict is Verdict.no_worse
    far = next(
        c for c in wild.comparisons
        if c.pairing is Pairing.mode and (c.subject.quant, c.subject.dial("rank")) == ("nf4", 64)
    )  # fmt: skip
    assert far.difference.high - far.difference.low > 0.5


def test_a_large_loss_is_found_among_however_many_comparisons() -> None:
    """The bootstrap's smallest p, about 2 / resamples, times 84 comparisons was above 5 %."""
    trials = [
        Trial(quant, rank, accuracy=None, loss_nats=0.3 + 0.2 * (quant == "nf4"))
        for quant in ("fp16", "int8", "nf4")
        for rank in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    ]
    findings = compare(make_study(trials, None, items=200))
    assert len(findings.comparisons) > 70
    assert of_mode(findings, "nf4").verdict is Verdict.worse


def test_trials_that_differ_in_any_setting_are_no_seeds_of_one_configuration() -> None:
    study = make_study([Trial("fp16", accuracy=0.9), Trial("fp16", accuracy=0.7)])
    trials = [
        replace(trial, settings={**trial.settings, "train_on_prompt": on})
        for trial, on in zip(study.trials, (True, False), strict=True)
    ]
    adapters = [s for s in compare(replace(study, trials=trials)).cells if not s.cell.base]
    assert [s.cell.variant for s in adapters] == ["train_on_prompt=False", "train_on_prompt=True"]
    assert all(s.accuracy and s.accuracy.seeds == 1 for s in adapters)


def test_what_differs_from_mode_to_mode_is_compared_and_named() -> None:
    study = make_study([Trial("fp16"), Trial("nf4")])
    study = with_settings(study, "fp16", train={"learning_rate": 1e-4}, attention="sdpa")
    study = with_settings(study, "nf4", train={"learning_rate": 2e-4}, attention="eager")
    confounds = of_mode(compare(study), "nf4").confounds
    assert "alpha x learning rate 0.0032 against 0.0016" in confounds
    assert "attention eager against sdpa" in confounds


def test_versions_that_differ_between_seeds_of_one_side_are_named() -> None:
    study = make_study([Trial(q, seed=s) for q in ("fp16", "nf4") for s in (0, 1)])
    older = {**study.trials[2].provenance.versions, "torch": "2.12.0"}
    study.trials[2] = replace(
        study.trials[2], provenance=replace(study.trials[2].provenance, versions=older)
    )
    named = of_mode(compare(study), "nf4").confounds
    assert any("torch 2.12.0, 2.13.0 / 2.13.0" in text for text in named)


@pytest.mark.parametrize(("accuracies", "said"), [((1.0, 1.0, 0.9), True), ((1.0, 0.9), False)])
def test_items_that_several_adapters_all_answer_right_are_said_to_be_too_easy(
    accuracies: tuple[float, ...], said: bool
) -> None:
    trials = [Trial("fp16", 2**place, accuracy=own) for place, own in enumerate(accuracies)]
    threats = compare(make_study(trials)).threats
    assert any("2 of 3 adapters have every test item right" in t for t in threats) is said
    assert any("every test item right" in t for t in threats) is said


def test_a_comparison_on_one_seed_among_several_says_what_it_does_not_know() -> None:
    trials = [Trial("fp16", seed=0), *(Trial("nf4", seed=seed) for seed in range(3))]
    threats = compare(make_study(trials)).threats
    assert any("1 of 1 comparisons between adapters rest on a single seed" in t for t in threats)


def test_a_gain_over_a_base_that_answers_nothing_is_said_to_be_form_perhaps() -> None:
    def told(base: float) -> list[str]:
        study = make_study([Trial("fp16"), Trial("nf4")], base, items=40)
        half = {
            identity: {
                split: [replace(one, target_sha256=str(n % 4)) for n, one in enumerate(own)]
                for split, own in splits.items()
            }
            for identity, splits in study.items.items()
        }
        data = replace(study.data, scoring="answer")
        found = compare(replace(study, data=data, items=half)).threats
        return [threat for threat in found if "form" in threat]

    (threat,) = told(0.0)
    assert threat.startswith("The bare base gives at most 0.0 % of the answers")
    assert threat.endswith("Always the commonest answer would be right on 25.0 %.")
    assert not told(0.1)


def test_seconds_of_trials_that_were_trained_at_once_are_called_shares() -> None:
    study = make_study([Trial("fp16"), Trial("nf4")])
    assert not any("at once" in threat for threat in compare(study).threats)
    alone, packed = study.trials
    assert packed.result is not None
    packed = replace(packed, result=replace(packed.result, pack_ranks=[2, 8]))
    threats = compare(replace(study, trials=[alone, packed])).threats
    assert any(
        threat.startswith("1 of 2 trials were trained several at once") for threat in threats
    )


def test_uncommitted_changes_are_told_where_there_is_a_commit_to_differ_from() -> None:
    study = make_study([Trial("fp16"), Trial("nf4")])

    def told(git_dirty: bool, git_commit: str | None) -> int:
        made = [
            replace(t, provenance=replace(t.provenance, git_dirty=git_dirty, git_commit=git_commit))
            for t in study.trials
        ]
        threats = compare(replace(study, trials=made)).threats
        return sum("uncommitted changes" in threat for threat in threats)

    assert told(git_dirty=True, git_commit="c" * 40) == 1
    assert told(git_dirty=True, git_commit=None) == 0
    assert told(git_dirty=False, git_commit="c" * 40) == 0


def test_declared_seeds_that_never_finished_are_not_counted() -> None:
    trials = [Trial(q, seed=s, status=Status.completed if s == 0 else Status.killed, reason="9")
              for q in ("fp16", "nf4") for s in range(3)]  # fmt: skip
    assert any(t.startswith("One training seed (0)") for t in compare(make_study(trials)).threats)


def test_equal_answers_do_not_make_every_difference_detectable() -> None:
    study = make_study([Trial("fp16"), Trial("nf4")], items=120, validation_items=120)
    answers = study.items[study.evaluations[-1].identity]
    trained = {e.identity: answers for e in study.evaluations if e.trial_identity}
    findings = compare(replace(study, items={**study.items, **trained}))
    comparison = of_mode(findings, "nf4")
    assert comparison.difference.value == 0
    half_width = (comparison.difference.high - comparison.difference.low) / 2
    assert comparison.detectable > half_width > 0.05
    (left,) = findings.decision.open
    assert left.items_needed is not None
    assert left.items_needed > 500
    assert findings.decision.projection is not None
    assert findings.decision.projection.half_width > 0.05


def test_a_configuration_without_a_common_seed_says_so() -> None:
    study = make_study([Trial("fp16", seed=0), Trial("nf4", seed=1)], validation_items=2000)
    (unknown,) = compare(study).decision.unknown
    assert unknown.ineligible == "no seed in common with the reference"


def test_items_whose_prompts_differ_are_counted_and_keep_no_one_else_from_the_frontier() -> None:
    study = make_study([Trial("fp16"), Trial("int8"), Trial("nf4")])
    odd = study.evaluations[-1].identity
    changed = [
        replace(item, prompt_sha256="other") if index < 900 else item
        for index, item in enumerate(study.items[odd]["test"])
    ]
    findings = compare(
        replace(study, items={**study.items, odd: {**study.items[odd], "test": changed}})
    )
    named = of_mode(findings, "nf4").confounds
    assert "100 of 1000 test items in common, the others' prompts or targets differ" in named
    points = {
        point.cell.quant for point in findings.frontiers["serving_bytes"] if point.cell.dial("rank")
    }
    assert points == {"fp16", "int8"}


def test_modes_are_compared_while_no_configuration_is_complete() -> None:
    trials = [Trial(q, seed=s, status=Status.completed if s < 2 else Status.killed, reason="9")
              for q in ("fp16", "nf4") for s in range(3)]  # fmt: skip
    findings = compare(make_study(trials))
    assert findings.decision.reference is None
    assert of_mode(findings, "nf4").difference.seeds == 2


def test_what_failed_and_could_not_be_cheaper_leaves_the_answer_settled() -> None:
    study = make_study(
        [
            *(Trial(quant, 8, seed=seed) for quant in ("fp16", "nf4") for seed in (0, 1)),
            Trial("fp16", 64, status=Status.out_of_memory, reason="8 GB"),
        ],
        validation_items=2000,
    )  # fmt: skip
    decision = compare(study).decision
    assert decision.recommended is not None
    assert decision.recommended.quant == "nf4"
    assert decision.settled


def test_items_without_a_token_are_left_out() -> None:
    trials = [Trial(q, accuracy=None, loss_nats=0.3) for q in ("fp16", "nf4")]
    study = make_study(trials, None)
    items = {
        identity: {
            split: [replace(rows[0], tokens=0, loss_nats=0.0), *rows[1:]]
            for split, rows in splits.items()
        }
        for identity, splits in study.items.items()
    }
    assert of_mode(compare(replace(study, items=items)), "nf4").difference.items == 999


def test_a_margin_as_large_as_what_training_gained_settles_nothing() -> None:
    """Two adapters at 4 % over a base at 2 %: within 5 points of each other, and of nothing."""
    study = make_study(
        [Trial("fp16", accuracy=0.04), Trial("nf4", accuracy=0.04)], 0.02, validation_items=2000
    )
    findings = compare(study)
    assert findings.decision.reference_gain == pytest.approx(0.02)
    assert not findings.decision.settled
    assert any("an adapter that learnt nothing would count as no worse" in t
               for t in findings.threats)  # fmt: skip
    page = report_files(study, findings)["report.md"].decode()
    assert "the margin is as large as what training gained" in page
    seeds = [Trial(quant, seed=seed) for quant in ("fp16", "nf4") for seed in (0, 1)]
    gained = compare(make_study(seeds, 0.02, validation_items=2000))
    assert gained.decision.settled


def test_a_merged_model_that_is_not_the_recommended_one_says_so() -> None:
    trials = [Trial("fp16"), Trial("nf4")]
    for merged, told in ((trials[0], True), (trials[1], False)):
        study = make_study(trials, merged=merged, validation_items=2000)
        page = report_files(study, compare(study))["report.md"].decode()
        assert ("Not the recommended trial" in page) is told


def test_power_does_not_promise_more_than_all_answers_that_differ() -> None:
    findings = compare(make_study([Trial("fp16"), Trial("nf4")], items=20))
    assert findings.power is not None
    assert "5 %" not in findings.power.before
    assert all(reach.found <= 0.3 for reach in findings.power.before.values())


def test_a_declared_spread_counts_where_every_answer_is_equal() -> None:
    """No number of items shows that seeds are equal: 4 points, one seed, both at 100 %."""
    right = np.ones((2, 2000))
    joined = JoinedItems(right, np.ones((2, 2000)), np.ones(2000), None)
    alike = compare_joined(joined, Measure.accuracy, 0.05)
    assert alike is not None
    declared = SeedNoise(raw=2 * 0.04**2, flicker=0.0, degrees=float("inf"))
    spread = with_seed_pool(alike, declared, Measure.accuracy, 0.05)
    # The spread alone gives 1.96 sqrt(2) 4 points; 2,000 equal items add little.
    assert spread.difference.high == pytest.approx(1.96 * 2**0.5 * 0.04, rel=0.02)
    assert spread.p_margin > 0.05
    assert alike.p_margin < 0.05
    no_spread = SeedNoise(raw=0.0, flicker=0.0, degrees=float("inf"))
    assert with_seed_pool(alike, no_spread, Measure.accuracy, 0.05) == alike


def test_a_reference_with_a_setting_in_words_has_a_grid_of_sizes() -> None:
    trials = [
        Trial(
            "fp16", method="sparse", accuracy=accuracy,
            dials=(("share", share), ("choice", "fisher")),
        )
        for share, accuracy in ((0.01, 0.7), (0.1, 0.95))
    ]  # fmt: skip
    threats = compare(make_study(trials)).threats
    assert "The reference's share, 0.1, is the largest that was trained." in threats
