"""Trials that give every item one class are told among what speaks against the result."""

from __future__ import annotations

from dataclasses import replace

from lorascope.comparing.findings import compare
from lorascope.records import Study
from tests.study_factory import Trial, make_study


def classed(study: Study, alike: int | None) -> Study:
    """Items of two classes; trials of rank `alike` give all of them the first."""
    items = {}
    for evaluation in study.evaluations:
        key = evaluation.key
        same = key is not None and key.dials["rank"] == alike
        items[evaluation.identity] = {
            split: [
                replace(item, label=n % 2, predicted=0 if same else n // 2 % 2)
                for n, item in enumerate(own)
            ]
            for split, own in study.items[evaluation.identity].items()
        }
    return replace(study, items=items)


def test_trials_that_give_one_class_alone_are_counted() -> None:
    study = make_study([Trial("fp16", rank=2), Trial("fp16", rank=8), Trial("nf4", rank=8)])

    def told(one: Study) -> list[str]:
        return [threat for threat in compare(one).threats if "one and the same class" in threat]

    assert [threat[:11] for threat in told(classed(study, 8))] == ["2 of 3 tria"]
    assert not told(classed(study, None))
    # Rows without classes.
    assert not told(study)
