"""A record's numbers as MLflow takes them, as plain values: nothing here imports mlflow."""

from __future__ import annotations

import math
import posixpath
import re
from dataclasses import fields
from typing import NamedTuple

from lorascope.files.layout import FORGETTING, SPLITS
from lorascope.records import (
    EvaluationRecord,
    LossPoint,
    SplitScore,
    TrainingResult,
    TrialRecord,
    ValidationPoint,
)

MAX_NAME = 250


class Point(NamedTuple):
    """One number of a run."""

    name: str
    value: float
    step: int

    @property
    def is_finite(self) -> bool:
        """Whether MLflow can keep it."""
        return math.isfinite(self.value)


def evaluation_points(evaluation: EvaluationRecord) -> list[Point]:
    """Every finite score of an evaluation, of a served form under its name, as
    int4_sym/test_accuracy."""
    served = score_form(evaluation)
    form = f"{served}/" if served else ""
    points = [
        Point(metric_name(f"{form}{_split_name(split, evaluation)}_{f.name}"), value, 0)
        for split, score in evaluation.splits.items()
        for f in fields(SplitScore)
        if (value := getattr(score, f.name)) is not None
    ]
    points += [
        Point(metric_name(f"{form}lm_eval/{name}"), value, 0)
        for name, value in evaluation.lm_eval_metrics.items()
    ]
    return [point for point in points if point.is_finite]


def _split_name(split: str, evaluation: EvaluationRecord) -> str:
    """What may be forgotten has the dataset's name: MLflow keeps a metric for good, and another
    dataset's loss is another number."""
    named = split == FORGETTING and evaluation.forgetting is not None
    return f"{split}/{evaluation.forgetting}" if named else split


def is_score_name(name: str, form: str) -> bool:
    """Whether `name` is that of a score of the served `form`, or of no form where it is empty."""
    if form and not name.startswith(f"{form}/"):
        return False
    name = name.removeprefix(f"{form}/") if form else name
    splits = "|".join((*SPLITS, rf"{FORGETTING}(/[^/]+)?"))
    numbers = "|".join(f.name for f in fields(SplitScore))
    return re.fullmatch(rf"({splits})_({numbers})|lm_eval/.+", name) is not None


def score_form(evaluation: EvaluationRecord) -> str:
    """The served form as names of metrics begin with it; empty for an adapter on its base."""
    return "" if evaluation.served is None else evaluation.form


def metric_name(name: str) -> str:
    """The nearest name that MLflow accepts: 'arc/acc,none' becomes 'arc/acc_none'."""
    allowed = re.sub(r"[^A-Za-z0-9_.\-/ ]", "_", name)
    return posixpath.normpath(allowed).lstrip("./")[:MAX_NAME] or "_"


def trial_points(trial: TrialRecord) -> list[Point]:
    """Every number of a trial: losses by step, results at step 0."""
    result = trial.result
    if result is None:
        return []
    points: list[Point] = []
    logged: list[LossPoint | ValidationPoint] = [*result.losses, *result.validations]
    for one in logged:
        points += step_points(one)
    return points + _result_points(result)


def step_points(logged: LossPoint | ValidationPoint) -> list[Point]:
    """The numbers of one logged step, or of a validation after it."""
    step = logged.step
    if isinstance(logged, ValidationPoint):
        # Under the result's own name the last would not be that of what is saved.
        name, value = "validation_loss_nats_in_training", logged.loss_nats
        return [] if value is None else [Point(name, value, step)]
    points = [
        Point("train_loss_nats", logged.loss_nats, step),
        Point("learning_rate", logged.learning_rate, step),
    ]
    if logged.gradient_norm is not None:
        points.append(Point("gradient_norm", logged.gradient_norm, step))
    # Under the names that dashboards know, such as rewards/margins.
    return points + [Point(metric_name(n), value, step) for n, value in logged.metrics.items()]


def _result_points(result: TrainingResult) -> list[Point]:
    """The result's own numbers under their field's names; units stand in those already."""
    points = []
    for f in fields(result):
        value = getattr(result, f.name)
        if isinstance(value, int | float):
            # The last interval's loss must not overwrite the curve of the same name.
            name = "final_train_loss_nats" if f.name == "train_loss_nats" else f.name
            points.append(Point(name, value, 0))
    for phase, memory in result.memory.items():
        for f in fields(memory):
            value = getattr(memory, f.name)
            if value is not None:
                points.append(Point(metric_name(f"memory_{phase}_{f.name}"), value, 0))
    return points
