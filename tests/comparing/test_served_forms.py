"""A trial in several forms: configurations of their own, their costs, pairs and answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lorascope.comparing.findings import compare
from lorascope.comparing.results import Pairing
from lorascope.comparing.seed_spread import Kind, kind_of
from lorascope.comparing.shipping import choose, choose_form
from lorascope.comparing.threats import threats
from lorascope.config import APART, Cost
from lorascope.errors import ConfigError
from lorascope.records import ItemResult, MemoryPlan, ServedForm, ServedRecord, Study
from lorascope.reporting.catalogue import report_files
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.tables.accuracy import accuracy_rows
from tests.study_factory import Trial, make_study, merge_record, provenance, scored_items

INT4 = ServedForm("int4_sym", {"quant.storage": "int4_sym"}, 300_000, 299_936, 4.5, "digest")
WRONG = 40
"""Test items that the served form alone gets wrong."""


def served_study(seeds: int = 3) -> Study:
    """fp16 at rank 8, each seed apart and as int4_sym, which gets some items wrong."""
    trials = [Trial("fp16", 8, 16.0, seed, accuracy=0.75) for seed in range(seeds)]
    study = make_study(trials, {"fp16": 0.2}, validation_items=1000)
    forms = [
        replace(e, name=f"{e.name}@int4_sym", identity=f"{e.identity}-int4", served=INT4)
        for e in study.evaluations
        if e.key
    ]
    items = {e.identity: scored_items(e) for e in study.evaluations}
    items |= {
        form.identity: {
            split: _some_wrong(rows) for split, rows in items[form.identity[:-5]].items()
        }
        for form in forms
    }
    declared = {trial.trial: [APART, "int4_sym"] for trial in study.trials}
    return replace(study, evaluations=[*study.evaluations, *forms], items=items, forms=declared)


def _some_wrong(rows: list[ItemResult]) -> list[ItemResult]:
    right = [place for place, row in enumerate(rows) if row.correct][:WRONG]
    return [
        replace(row, correct=False, loss_nats=row.loss_nats + 1) if place in right else row
        for place, row in enumerate(rows)
    ]


def test_a_form_is_a_configuration_with_seeds_costs_and_a_name_of_its_own() -> None:
    found = compare(served_study())
    apart, served = (score for score in found.cells if not score.cell.base)
    assert (apart.cell.serve, served.cell.serve) == (APART, "int4_sym")
    assert [len(score.trials) for score in (apart, served)] == [3, 3]
    assert served.costs[Cost.serving_bytes] == 300_000
    assert apart.costs[Cost.serving_bytes] > 300_000
    assert served.costs[Cost.train_seconds] == apart.costs[Cost.train_seconds]
    names = CellNames.of(found)
    assert names.name(apart.cell) == "fp16, rank 8"
    assert names.name(served.cell) == "fp16, rank 8, served int4_sym"
    assert found.decision.declared == 3


def test_a_form_is_held_against_the_same_adapters_apart_item_by_item() -> None:
    found = compare(served_study())
    (pair,) = (c for c in found.comparisons if c.pairing is Pairing.served)
    assert (pair.subject.serve, pair.reference.serve) == ("int4_sym", APART)
    assert pair.difference.seeds == 3
    assert (pair.subject_only_right, pair.reference_only_right) == (0, 3 * WRONG)
    assert pair.difference.value == pytest.approx(-WRONG / pair.difference.items)
    assert pair.confounds == ()
    assert kind_of(pair.subject, pair.reference) is Kind.form


def test_the_reference_is_apart_whatever_a_form_scores() -> None:
    study = served_study()
    better = {
        key: {split: [replace(row, correct=True) for row in rows] for split, rows in table.items()}
        if key.endswith("-int4") else table
        for key, table in study.items.items()
    }  # fmt: skip
    reference = compare(replace(study, items=better)).decision.reference
    assert reference is not None
    assert reference.serve == APART


def test_the_form_that_the_rule_recommends_is_the_one_that_ships() -> None:
    study = served_study()
    same = {key: study.items[key.removesuffix("-int4")] for key in study.items}
    study = replace(study, items=same)
    trial, *_ = choose("auto", study)
    # It costs less, and loses nothing.
    assert choose_form("auto", trial, study) == "int4_sym"
    assert choose_form(trial.trial, trial, study) == "int4_sym"
    assert choose_form(f"{trial.trial}@apart", trial, study) == APART
    several = replace(study, forms={trial.trial: [APART, "int4_sym", "int8"]})
    with pytest.raises(ConfigError, match=r"several merged forms.*@int8"):
        choose_form(trial.trial, trial, several)
    with pytest.raises(ConfigError, match="no such form"):
        choose_form(f"{trial.trial}@fp16", trial, several)


def page_of(study: Study) -> str:
    return report_files(study, compare(study))["report.md"].decode()


def scored_otherwise(study: Study, accuracy: float) -> Study:
    """The same with another validation accuracy of each served form."""
    return replace(
        study,
        evaluations=[
            replace(
                e,
                splits={
                    **e.splits, "validation": replace(e.splits["validation"], accuracy=accuracy)
                },
            )
            if e.served else e
            for e in study.evaluations
        ],
        items={key: study.items[key.removesuffix("-int4")] for key in study.items},
    )  # fmt: skip


def test_the_score_of_what_ships_is_that_of_the_form_that_was_chosen() -> None:
    study = scored_otherwise(served_study(), 0.625)
    trial, _, score = choose("auto", study)
    assert score == 0.625
    assert choose(f"{trial.trial}@int4_sym", study)[2] == 0.625
    assert choose(trial.trial, study)[2] == choose(f"{trial.trial}@apart", study)[2] == 0.75
    merged = replace(
        study,
        evaluations=[e for e in study.evaluations if e.served or not e.key],
        forms={name: ["int4_sym"] for name in study.forms},
    )
    assert choose(trial.trial, merged)[2] == 0.625


def test_the_page_says_where_the_recommended_form_is_and_that_another_is_not_it() -> None:
    study = scored_otherwise(served_study(), 0.75)
    findings = compare(study)
    cell, trial = findings.decision.recommended, findings.decision.trial
    assert cell is not None
    assert trial is not None
    assert cell.serve == "int4_sym"
    merge = replace(merge_record(Trial("fp16")), trial=trial)
    own = ServedRecord(
        trial, "fp16", INT4, "auto: cheapest", "digest", 0.75, True, 64, 0.3, 0.3, True,
        provenance(),
    )  # fmt: skip
    other = replace(own, served=replace(INT4, name="int8"))
    shown, stale = (
        page_of(one)
        for one in (replace(study, merge=merge, served=served) for served in (own, other))
    )
    where = "served as `int4_sym`, and was scored so, not in float32: `lorascope quantize-merged`"
    assert where in shown
    assert "models/tiny/served" in shown
    assert "Not the recommended form" not in shown
    assert f"**Not the recommended form**, which is `{trial}` served `int4_sym`" in stale
    # An adapter that is recommended apart needs no word.
    alone = make_study([Trial("fp16")], {"fp16": 0.2}, merged=Trial("fp16"))
    assert "is served as" not in page_of(alone)


def test_a_form_without_scores_has_no_size() -> None:
    study = served_study()
    scored = [e for e in study.evaluations if e.name != f"{study.trials[0].trial}@int4_sym"]
    rows = accuracy_rows(replace(study, evaluations=scored))
    sizes = [(row.seed, row.stored_bytes) for row in rows if row.cell.serve == "int4_sym"]
    assert sorted(sizes) == [(0, None), (1, 300_000), (2, 300_000)]
    bases = {row.stored_bytes for row in rows if row.cell.serve == APART}
    assert bases == {study.footprints[0].total_bytes}


def test_threats_count_adapters_and_trainings_once_whatever_their_forms() -> None:
    study = served_study()
    plan = MemoryPlan("cpu", 8, 64, 1, 0, 1, 1, 1, 1, 1, 0, {"train": 10}, 0.1)
    predicted = [replace(trial, plan=plan) for trial in study.trials]
    study = replace(study, trials=predicted)
    found = compare(study)
    small = [replace(c, smaller_than_seed_spread=True) for c in found.comparisons]
    told = " ".join(threats(study, found.cells, small, found.decision, None))
    assert any(c.pairing is Pairing.served for c in small)
    assert "Training peaks of 1 configurations are predicted" in told
    # The one pair of forms is no difference between adapters.
    assert "between adapters" not in told


def test_the_report_shows_both_and_their_pair() -> None:
    study = served_study()
    files = report_files(study, compare(study))
    page, csv = files["report.md"].decode(), files["cells.csv"].decode()
    assert "fp16, rank 8, served int4_sym" in page
    assert "Merged and stored against the same adapters apart on their base" in page
    assert "Merged models as they are stored to be served" in page
    assert csv.splitlines()[0].split(",")[:3] == ["quant", "method", "targets"]
    assert "serve" in csv.splitlines()[0]
    several = replace(make_study([Trial("fp16", 8), Trial("fp16", 16)]), forms=study.forms)
    assert "the one of its mode and form that validates best" in page_of(several)
    assert "the one of its mode that validates best" in page_of(replace(several, forms={}))
    trials = files["accuracy.csv"].decode().splitlines()
    assert sum("int4_sym" in line for line in trials) == 3
    # A study that knows no forms has no column of them.
    alone = make_study([Trial("fp16", 8, 16.0, 0)], {"fp16": 0.2})
    assert "serve" not in report_files(alone, compare(alone))["cells.csv"].decode().splitlines()[
        0
    ].split(",")
