"""Scores by group: those of a study that has the group's rows alone, corrected for all tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lorascope.comparing.cells import base_cell
from lorascope.comparing.findings import compare
from lorascope.comparing.results import CellKey, cell_of
from lorascope.records import ItemResult, Study
from lorascope.reporting.catalogue import report_files
from lorascope.reporting.tables.groups import group_table
from lorascope.statistics.accuracy import FlipDifference, accuracy_difference
from lorascope.statistics.shares import PairedDifference
from tests.study_factory import Trial, make_study

SUBJECTS = ("maths", "history", "physics")


def grouped(study: Study) -> Study:
    """Whole clusters of five in one subject, every second one in maths."""

    def named(place: int, item: ItemResult) -> ItemResult:
        return replace(item, group=SUBJECTS[(place // 5) % 4 % 3])

    items = {
        identity: {
            **splits, "test": [named(place, item) for place, item in enumerate(splits["test"])]
        }
        for identity, splits in study.items.items()
    }  # fmt: skip
    return replace(study, items=items)


def difference(
    study: Study, group: str, subject: CellKey, reference: CellKey
) -> FlipDifference | PairedDifference:
    """By the statistic itself, on arrays put together here."""

    def items(cell: CellKey) -> list[ItemResult]:
        (found,) = (
            e.identity for e in study.evaluations
            if (cell_of(e.key) if e.key else base_cell(e.quant)) == cell
        )  # fmt: skip
        return [i for i in study.items[found]["test"] if i.group == group]

    right = [np.array([[float(bool(i.correct)) for i in items(c)]]) for c in (subject, reference)]
    _, clusters = np.unique([i.cluster for i in items(subject)], return_inverse=True)
    return accuracy_difference(right[0], right[1], clusters)


def only(study: Study, group: str) -> Study:
    items = {
        identity: {**splits, "test": [item for item in splits["test"] if item.group == group]}
        for identity, splits in study.items.items()
    }
    return replace(study, items=items)


@pytest.fixture(scope="module")
def study() -> Study:
    trials = [
        Trial("fp16", 8, accuracy=0.80), Trial("fp16", 64, accuracy=0.9),
        Trial("nf4", 8, accuracy=0.85), Trial("nf4", 64, accuracy=0.78),
    ]  # fmt: skip
    return grouped(make_study(trials, items=400))


def test_each_group_scores_as_a_study_of_its_rows_alone_and_all_tests_are_corrected(
    study: Study,
) -> None:
    found = compare(study)
    rows = found.groups
    assert list(dict.fromkeys(row.group for row in rows)) == ["maths", "history", "physics"]
    reference = found.decision.reference
    alone = {group: compare(only(study, group)) for group in SUBJECTS}
    p_values = []
    for row in rows:
        whole = alone[row.group].score(row.cell).accuracy
        assert whole is not None
        assert row.score is not None
        assert row.value == row.score.value
        assert (row.score.value, row.score.ends) == (whole.value, whole.ends)
        assert row.items == (200 if row.group == "maths" else 100)
        if row.cell == reference:
            assert row.against is None
            continue
        assert row.against is not None
        assert reference is not None
        tested = difference(study, row.group, row.cell, reference)
        said = row.against.difference
        assert (said.value, *said.ends) == (tested.estimate, tested.low, tested.high)
        p_values.append((tested.p_value, row.against.p_holm))
    # The reference's bare base and the other mode's best, at least, in three groups.
    assert len(p_values) >= 6
    # Holm (1979): the smallest times their number, and so on, never falling.
    largest = 0.0
    for place, (p, corrected) in enumerate(sorted(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p))
        assert corrected == pytest.approx(largest)


def test_data_without_groups_have_no_such_table(study: Study) -> None:
    plain = make_study([Trial("fp16"), Trial("nf4")])
    assert compare(plain).groups == ()
    assert b"by group" not in report_files(plain, compare(plain))["report.html"]
    page = report_files(study, compare(study))["report.md"].decode()
    assert "## Accuracy by group" in page
    assert "| maths " in page


def test_a_group_of_one_cluster_or_one_row_is_shown_without_an_interval(study: Study) -> None:
    items = {
        identity: {
            **splits,
            "test": [
                replace(item, group="biology" if place < 5 else "law" if place == 5 else item.group)
                for place, item in enumerate(splits["test"])
            ],
        }
        for identity, splits in study.items.items()
    }
    small = replace(study, items=items)
    found = compare(small)
    rows = {row.group: row for row in found.groups if row.cell == found.decision.reference}
    (identity,) = (
        e.identity for e in study.evaluations if e.key and cell_of(e.key) == rows["law"].cell
    )
    first = [float(bool(item.correct)) for item in study.items[identity]["test"][:6]]
    assert (rows["biology"].items, rows["biology"].value) == (5, sum(first[:5]) / 5)
    assert (rows["law"].items, rows["law"].value) == (1, first[5])
    for group in ("biology", "law"):
        assert all(
            row.score is None and row.against is None for row in found.groups if row.group == group
        )
    (column,) = (own for own in group_table(found).columns if own.key == "score_interval")
    shown = {row.group: column.show(column.cell(row)) for row in found.groups}
    assert (shown["biology"], shown["law"]) == ("none: one cluster", "none: one row")
    assert " to " in shown["maths"]
