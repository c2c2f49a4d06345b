"""What an objective logs beside its loss reaches the tracking store under its own names."""

from __future__ import annotations

from dataclasses import replace

from lorascope.records import LossPoint
from lorascope.tracking.content import Point, trial_points
from tests.study_factory import Trial, trial_record


def test_metrics_of_preferences_keep_their_names_and_steps() -> None:
    record = trial_record(Trial("fp16"))
    assert record.result is not None
    metrics = {"rewards/margins": 0.25, "logps/chosen": -12.5, "kl": 0.01}
    losses = [LossPoint(5, 0.6, 1e-3, 1.0, metrics)]
    points = trial_points(replace(record, result=replace(record.result, losses=losses)))
    told = [point for point in points if point.name in metrics]
    assert told == [Point(name, value, 5) for name, value in metrics.items()]
