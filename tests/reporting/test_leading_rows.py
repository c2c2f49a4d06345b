"""Which rows of a long table come first."""

from __future__ import annotations

from lorascope.comparing.findings import compare
from lorascope.reporting.leading_rows import leading_first
from lorascope.reporting.tables.accuracy import accuracy_rows
from tests.study_factory import example_study


def test_what_ships_comes_first_and_rows_of_no_configuration_have_no_order() -> None:
    study = example_study()
    findings, rows = compare(study), accuracy_rows(study)
    first = leading_first(rows, findings)
    assert sorted(first) == list(range(len(rows)))
    assert rows[first[0]].cell == findings.decision.recommended
    layers = [layer for footprint in study.footprints for layer in footprint.layers]
    assert layers
    assert leading_first(layers, findings) == ()
    assert leading_first([], findings) == ()
