"""What the page says of findings: sentences follow verdicts, tables hold the numbers."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from lorascope.comparing.findings import compare
from lorascope.comparing.results import Measure, Verdict
from lorascope.comparing.ruling import Findings, Projection, SettleItems
from lorascope.records import Status, Study
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.metrics import decision_json, decision_metrics
from lorascope.reporting.pages.document import Answer
from lorascope.reporting.pages.recommendation import UNKNOWN_SEED, answer, what_settles
from lorascope.reporting.tables.cells import cell_table
from lorascope.reporting.tables.comparisons import comparison_table
from lorascope.reporting.tables.decision import candidate_table
from lorascope.reporting.tables.frontier import frontier_summary, frontier_table
from tests.comparing.test_served_forms import served_study
from tests.study_factory import Trial, example_study, make_study


def settled_study() -> Study:
    """nf4 is as good as fp16, and cheaper."""
    return make_study(
        [Trial(quant, accuracy=0.9, seed=seed) for quant in ("fp16", "nf4") for seed in (0, 1)],
        items=2000,
        validation_items=2000,
    )


def undecided_study(seeds: int = 1) -> Study:
    """nf4 is somewhat worse, and nobody knows whether within the margin."""
    return make_study(
        [
            Trial(quant, accuracy=accuracy - seed / 1000, seed=seed)
            for quant, accuracy in (("fp16", 0.9), ("nf4", 0.88))
            for seed in range(seeds)
        ],
        items=400,
    )


def words(found: Answer) -> str:
    """All that an answer says."""
    notes = ["".join(p if isinstance(p, str) else p.text for p in note) for note in found.notes]
    facts = [f"{fact.label} {fact.value} {fact.note}" for fact in found.facts]
    return "\n".join([found.headline, found.state, short(found), *facts, *notes])


def short(found: Answer) -> str:
    """Its few lines in a person's words."""
    lines = [
        f"{term}: {''.join(p if isinstance(p, str) else p.text for p in line)}"
        for term, line in found.in_short
    ]
    return "\n".join(lines)


def test_the_top_says_how_sure_at_what_price_what_is_open_and_what_settles_it() -> None:
    settled = short(answer(compare(settled_study())))
    assert "differs from fp16, rank 8 by 0.0 points" in settled
    assert "2 seeds); that it is worse by 5.0 points or more is ruled out." in settled
    assert re.search(r"Price: \d+ kB of serving memory instead of the [\d.]+ MB of fp16", settled)
    assert settled.endswith("Open: Nothing.")
    trials = [Trial("fp16", accuracy=0.9), Trial("nf4", accuracy=0.9)]
    one_seed = short(answer(compare(make_study(trials, items=2000, validation_items=2000))))
    assert "Open: What other seeds give." in one_seed
    assert "To settle it: dvc exp run -S search=settle -S 'seed=\"0,1,2,3\"' trains" in one_seed
    # Three more seeds of two configurations, at what a trial of the study took.
    assert "at most 6 more trials, about 70 s of training" in one_seed


def test_the_top_keeps_capitals_of_names_and_counts_a_trial_once_however_it_is_served() -> None:
    other = Trial("nf4", accuracy=0.88, method="ia3", dials=())
    open_one = short(answer(compare(make_study([Trial("fp16"), other], items=400))))
    assert "Open: What other seeds give; whether nf4, IA3 would do." in open_one
    assert "at most 3 more trials" in short(answer(compare(served_study(1))))
    # Both lack three seeds more, and one lacks two that the other has.
    uneven = [*(Trial("fp16", seed=seed) for seed in range(3)), Trial("nf4", accuracy=0.88)]
    many = make_study(uneven, items=400, validation_items=2000)
    assert "at most 8 more trials" in short(answer(compare(many)))
    # 200 items stay as wide as the margin, whatever further seeds give.
    assert "dvc exp run" not in short(answer(compare(make_study(uneven, items=400))))


def test_the_top_calls_nothing_the_reference_that_is_not() -> None:
    trials = [Trial(quant, seed=seed) for quant in ("fp16", "nf4") for seed in (0, 1)]
    found = answer(compare(make_study(trials, items=1, validation_items=2000)))
    assert found.headline.startswith("Ship nf4")
    assert "the reference itself" not in short(found)
    assert "too few test items are scored under both it and fp16, rank 8" in short(found)


def test_the_top_says_where_settling_would_judge_on_too_few_items() -> None:
    def found(items: int, ranks: tuple[int, ...]) -> Findings:
        trials = [Trial(quant, rank, accuracy=0.9) for quant in ("fp16", "nf4") for rank in ranks]
        return compare(make_study(trials, items=400, validation_items=items))

    # A quarter of them chooses among two references, and 87 have to judge three candidates:
    # z^2 (1 - m) / m with m of 5 points and z of 5 % x 2/3 x 1/2.
    few = short(answer(found(100, (4, 8))))
    assert "fewer than 87 show nothing within the margin" in few
    assert "of 100 (the others choose the reference, unless decide.reference_rank names" in few
    assert "would judge" not in short(answer(found(2000, (4, 8))))
    # One candidate may spend 5 % at once.
    assert found(50, (8,)).decision.settle_items == SettleItems(50, 50, 52)


def test_settled_answer_names_the_cheaper_configuration_and_its_difference() -> None:
    findings = compare(settled_study())
    found, test = answer(findings), findings.decision.test
    assert (found.headline, found.state) == ("Ship nf4, rank 8, alpha 16", "settled")
    assert test is not None
    assert found.facts[0].label == "Against fp16, rank 8"
    assert found.facts[0].value == "0.0 points"
    ends = findings.measure.difference_interval(test.difference.ends)
    assert f"95 % interval {ends}" in found.facts[0].note
    assert "No cheaper configuration is left undecided." in words(found)


def test_seeds_are_not_advised_where_every_answer_is_right_and_items_are_few() -> None:
    trials = [
        Trial(quant, rank, accuracy=1.0, seed=seed)
        for quant in ("fp16", "nf4")
        for rank in (4, 8)
        for seed in range(4)
    ]
    findings = compare(make_study(trials, items=300, validation_items=300))
    still_open = findings.decision.open
    assert still_open
    assert not any(row.seeds_needed for row in still_open)
    items = {row.items_needed or 0 for row in still_open}
    wanted = " to ".join(map(str, sorted({min(items), max(items)})))
    found = short(answer(findings))
    assert f"To settle it: About {wanted} validation items in all (there are 300: name" in found
    assert "more seeds alone would hardly do." in found
    # Nothing varies, so that no reach without pairing is known.
    assert findings.power is not None
    assert findings.power.unpaired is None


def test_answer_from_one_seed_is_about_that_seed_and_settles_nothing() -> None:
    trials = [Trial("fp16", accuracy=0.9), Trial("nf4", accuracy=0.9)]
    study = make_study(trials, items=2000, validation_items=2000)
    findings = compare(study)
    found = answer(findings)
    assert found.headline == "Ship nf4, rank 8, alpha 16"
    assert (found.state, found.is_settled) == ("for this seed, unknown for others", False)
    assert "chosen with this seed, whose luck is in it" in words(found)
    content = json.loads(decision_json(study, findings.decision))
    assert (content["settled"], content["seeds"]) == (False, 1)
    assert content["holds_for"] == "this seed; unknown for others"
    metrics = decision_metrics(findings.decision)
    assert metrics["settled"] is False
    assert metrics["recommended_dora"] is False
    assert metrics["recommended_variant"] is None
    failed = make_study([Trial("nf4", status=Status.killed, reason="SIGKILL")], None)
    assert json.loads(decision_json(failed, compare(failed).decision))["holds_for"] is None


def test_answer_from_several_seeds_shows_new_seeds_chosen_seeds_and_what_ships_apart() -> None:
    trials = [
        Trial(quant, accuracy=0.9 + 0.04 * seed, seed=seed)
        for quant in ("fp16", "nf4")
        for seed in (0, 1)
    ]
    findings = compare(make_study(trials, items=2000, validation_items=2000))
    facts = {fact.label: fact for fact in answer(findings).facts}
    assert facts["Test accuracy of a new seed"].value == "92.0 %"
    assert "each seed scores what the rule chose without it" in (
        facts["Test accuracy of a new seed"].note
    )
    assert "whose luck is in it" in facts["Test accuracy of the chosen seeds"].note
    assert facts["The adapter that ships (ship: auto)"].value == "94.0 %"
    assert (
        "seed 1, the best of 2 on validation items"
        in facts["The adapter that ships (ship: auto)"].note
    )


def test_undecided_answer_says_what_would_settle_it() -> None:
    text = words(answer(compare(undecided_study())))
    assert "Ship fp16, rank 8, alpha 16" in text
    assert "1 cheaper undecided" in text
    assert "Open: nf4, rank 8: −2.0 points on validation" in text
    assert re.search(r"[\d,]+ validation items in all would settle it", text)


def test_answer_says_why_something_is_open_whose_own_interval_would_do() -> None:
    modes = ("fp16", "int8", "nf4", "nf4_dq")
    findings = compare(make_study([Trial(quant, accuracy=0.9) for quant in modes], items=200,
                                  validation_items=220))  # fmt: skip
    rows = {row.cell.quant: row for row in findings.decision.open}
    lows = {quant: row.difference.low for quant, row in rows.items() if row.difference}
    assert [quant for quant, low in lows.items() if low > -0.05] == ["nf4_dq"]
    # Holm holds the smallest p of three against a third of 5 %.
    assert rows["nf4_dq"].held_to == pytest.approx(1 - 0.05 / 3)
    assert rows["int8"].held_to is None
    found = answer(findings)
    assert (
        "By the 95 % interval alone nf4_dq, rank 8 lies inside the margin of 5.0 points; as "
        in (short(found))
    )
    assert words(found).count("an interval of 98.3 % has to") == 1
    assert words(found).count("one of 98.3 % would have to") == 1
    # Three at once are not shown by fewer than 109 items, were not one answer different.
    few = compare(make_study([Trial(quant, accuracy=0.94) for quant in modes], items=200,
                             validation_items=60))  # fmt: skip
    assert all((row.items_needed or 0) >= 109 for row in few.decision.open)
    assert few.decision.open
    table = candidate_table(findings.decision).markdown()
    assert table.count("undecided: an interval of 98.3 % reaches across the margin") == 1


def test_three_more_seeds_have_no_upper_end_where_the_seed_spread_is_unknown() -> None:
    one = words(answer(compare(undecided_study())))
    seeds = "Three more seeds would take the interval of nf4, rank 8 against the reference on "
    assert f"{seeds}validation items from" in one
    width = r"±\u00a0\d+\.\d"
    assert re.search(rf"from {width} to {width} points at best, as one seed does not show", one)
    three = words(answer(compare(undecided_study(seeds=3))))
    assert re.search(rf"from {width} to between {width} and {width} points\.", three)


def test_answer_without_scores_recommends_nothing_and_says_why() -> None:
    study = make_study([Trial("nf4", status=Status.killed, reason="signal 9")], 0.1)
    found = answer(compare(study))
    assert (found.headline, found.state) == ("No configuration can be recommended", "no score")
    assert not found.is_settled
    assert "nf4, rank 8: seed 0 killed (signal 9)." in words(found)


def test_answer_counts_nats_where_items_cannot_be_right_or_wrong() -> None:
    study = make_study([Trial("fp16", accuracy=None), Trial("nf4", accuracy=None)], None)
    findings = compare(study)
    assert findings.measure is Measure.loss_nats
    assert "nats" in words(answer(findings))
    assert "points" not in words(answer(findings))


@pytest.mark.parametrize(("items", "seeds", "expected"), [
    (900, None, "If the difference stays, 900 validation items in all would settle it."),
    (None, 4, "If the difference stays, 4 seeds in all would settle it."),
    (900, 4, "If the difference stays, 900 validation items in all or 4 seeds in all would "
             "settle it."),
])  # fmt: skip
def test_what_settles_names_each_known_way(
    items: int | None, seeds: int | None, expected: str
) -> None:
    candidate = compare(undecided_study()).decision.open[0]
    assert what_settles(replace(candidate, items_needed=items, seeds_needed=seeds)) == expected


def test_what_would_settle_it_says_in_which_direction() -> None:
    candidate = compare(undecided_study()).decision.open[0]
    beyond = replace(candidate, items_needed=900, seeds_needed=None, beyond_margin=True)
    assert what_settles(beyond) == (
        "If the difference stays, 900 validation items in all would settle it, as worse by more "
        "than the margin."
    )


@pytest.mark.parametrize(("near", "expected"), [
    (True, "The difference lies too near the margin to say how many items would settle it."),
    (False, "Items alone would not settle it: seeds differ too much for their number."),
])  # fmt: skip
def test_what_settles_says_why_no_number_would(near: bool, expected: str) -> None:
    candidate = compare(undecided_study()).decision.open[0]
    unknown = replace(candidate, items_needed=None, seeds_needed=None, near_margin=near)
    assert what_settles(unknown) == expected


def test_answer_changes_with_the_verdict_alone() -> None:
    """No conclusion stands in the generator: turn the verdict, and the sentence turns."""
    findings = compare(settled_study())
    assert findings.decision.test is not None
    worse = replace(findings.decision.test, verdict=Verdict.worse)
    turned = replace(findings, decision=replace(findings.decision, test=worse))
    assert "the pair is worse:" in words(answer(turned))
    assert "On test items the pair is worse:" not in words(answer(findings))


def test_projection_of_one_seed_uses_its_number() -> None:
    findings = compare(settled_study())
    plan = Projection(1, 0.03, 0.02, 0.02, True)
    turned = replace(findings, decision=replace(findings.decision, projection=plan))
    assert "One more seed would take" in words(answer(turned))


def names_of(findings: Findings) -> CellNames:
    return CellNames.of(findings)


def test_comparisons_csv_has_every_pair_with_exact_numbers() -> None:
    findings = compare(example_study())
    table = comparison_table(findings)
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    assert len(rows) == len(findings.comparisons) > 20
    first, row = findings.comparisons[0], rows[0]
    assert (row["subject_quant"], row["reference_quant"]) == (
        first.subject.quant, first.reference.quant,
    )  # fmt: skip
    assert float(row["difference"]) == first.difference.value
    assert float(row["low"]) == first.difference.low
    assert (row["verdict"], row["pairing"]) == (first.verdict.value, first.pairing.value)


def test_comparison_text_leaves_the_unknown_seed_spread_out() -> None:
    def header(study: Study) -> str:
        findings = compare(study)
        table = comparison_table(findings)
        return table.markdown().splitlines()[0]

    assert "Seed spread" not in header(undecided_study())
    assert "Seed spread" in header(undecided_study(seeds=3))


def test_cell_table_keeps_failed_and_missing_configurations_with_their_state() -> None:
    findings = compare(example_study())
    rows = list(csv.DictReader(io.StringIO(cell_table(findings).csv())))
    assert len(rows) == len(findings.cells)
    states = {row["state"] for row in rows}
    assert states == {"base", "complete", "diverged", "missing"}
    lost = next(row for row in rows if row["state"] == "diverged")
    assert (lost["accuracy"], lost["rank"]) == ("", "64")


def test_cell_table_names_the_seeds_that_have_no_score() -> None:
    trials = [
        Trial("nf4", seed=0), Trial("nf4", seed=1, status=Status.out_of_memory, reason="8 GB"),
    ]  # fmt: skip
    findings = compare(make_study(trials))
    text = cell_table(findings).markdown()
    assert "seed 1 out_of_memory" in text


def test_frontier_is_a_row_a_cost_for_machines_and_a_row_a_configuration_for_people() -> None:
    findings = compare(example_study())
    rows = frontier_table(findings).rows
    assert len(rows) == sum(map(len, findings.frontiers.values()))
    machine = list(csv.DictReader(io.StringIO(frontier_table(findings).csv())))
    assert {row["cost_name"] for row in machine} == set(findings.frontiers)
    people = frontier_summary(rows, findings.measure).markdown()
    assert people.count("\n") == 2 + len({row.cell for row in rows})
    assert re.search(r"yes, \d+ %", people)


def test_candidates_say_what_the_rule_makes_of_them() -> None:
    text = candidate_table(compare(settled_study()).decision).markdown()
    assert "recommended, within the margin" in text
    assert "reference" in text
    assert "undecided" in candidate_table(compare(undecided_study()).decision).markdown()


def test_decision_json_holds_rule_answer_and_candidates() -> None:
    study = settled_study()
    decision = compare(study).decision
    content = json.loads(decision_json(study, decision))
    assert content["settled"] is True
    assert content["recommended"]["quant"] == "nf4"
    assert content["rule"]["margin_accuracy"] == decision.margin
    assert len(content["candidates"]) == len(decision.candidates)


@pytest.mark.parametrize(("value", "text"), [
    (0.012, "+1.2"), (-0.0123, "−1.2"), (0.0001, "0.0"), (-0.0004, "0.0"),
])  # fmt: skip
def test_difference_has_a_sign_unless_it_rounds_to_zero(value: float, text: str) -> None:
    assert Measure.accuracy.difference(value) == text


def test_probabilities_are_certain_only_where_they_are() -> None:
    assert [units.share(p) for p in (0.0, 0.004, 0.5, 0.996, 1.0)] == [
        "0",
        "< 1",
        "50",
        "> 99",
        "100",
    ]
    assert [units.p_value(p) for p in (0.0004, 0.0456)] == ["< 0.001", "0.046"]
    assert units.confidence([0.992]) == "99.2 %"
    assert units.confidence([0.9998, 0.975]) == "97.5 to 99.98 %"
    # 1 - 1e-17 is 1 in floating point.
    assert units.confidence([1 - 1e-17]) == "more than 99.9999 %"


def test_names_say_only_what_varies_and_the_answer_says_all() -> None:
    findings = compare(make_study([Trial("nf4", alpha=8), Trial("nf4", alpha=16)]))
    names, cell = names_of(findings), findings.cells[1].cell
    assert names.name(cell) == names.full(cell) == "nf4, rank 8, alpha 8"
    plain = names_of(compare(make_study([Trial("nf4", rank=4)])))
    assert plain.name(cell) == "nf4, rank 8"


def test_a_seed_that_the_choice_without_it_lacks_leaves_the_new_seed_unknown_in_words() -> None:
    """Without seed 2 the rule takes rank 64, which has no score with it."""
    steady = [Trial("fp16", 64, seed=seed, accuracy=0.85) for seed in (0, 1)]
    lucky = [Trial("fp16", 8, seed=s, accuracy=a) for s, a in enumerate((0.8, 0.8, 0.99))]
    findings = compare(make_study([*lucky, *steady]))
    assert findings.decision.fresh is None
    notes = [fact.note for fact in answer(findings).facts if fact.label == "Test accuracy"]
    assert [UNKNOWN_SEED in note for note in notes] == [True]
