"""What an objective logs beside its loss reaches the tracking store under its own names."""

from __future__ import annotations

from dataclasses import replace

from lorascope.files.layout import FORGETTING
from lorascope.records import LossPoint
from lorascope.tracking.points import Point, evaluation_points, trial_points
from tests.study_factory import Trial, make_study, trial_record


def test_metrics_of_preferences_keep_their_names_and_steps() -> None:
    record = trial_record(Trial("fp16"))
    assert record.result is not None
    metrics = {"rewards/margins": 0.25, "logps/chosen": -12.5, "kl": 0.01}
    losses = [LossPoint(5, 0.6, 1e-3, 1.0, metrics)]
    points = trial_points(replace(record, result=replace(record.result, losses=losses)))
    told = [point for point in points if point.name in metrics]
    assert told == [Point(name, value, 5) for name, value in metrics.items()]


def test_what_is_forgotten_is_named_by_its_dataset() -> None:
    study = make_study([Trial("fp16")])
    (record,) = (own for own in study.evaluations if own.key)
    splits = {**record.splits, FORGETTING: record.splits["test"]}

    def names(forgetting: str | None) -> set[str]:
        scored = replace(record, splits=splits, forgetting=forgetting)
        return {point.name for point in evaluation_points(scored) if FORGETTING in point.name}

    assert "forgetting/wiki_completion_loss_nats" in names("wiki")
    assert not names("wiki") & names("known_people")
    # As older records have it.
    assert "forgetting_completion_loss_nats" in names(None)
