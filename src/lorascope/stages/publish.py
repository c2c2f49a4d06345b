"""Mirror every record of the project into MLflow: closes the gap that skipped stages leave."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lorascope.comparing.findings import compare
from lorascope.config import Config
from lorascope.errors import LorascopeError, RecordError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.records import EvaluationRecord, TrialRecord
from lorascope.reporting.tracked_study import study_content
from lorascope.study.collect import collect
from lorascope.study.intact_scores import scored_items
from lorascope.tracking import Publication, StudyContent, publish

R = TypeVar("R")


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> int:
    """Publish what can be read, and scores that are those of their items; 1 where something was
    damaged, else 0.

    Raises:
        LorascopeError: something was given, and it takes nothing.
        TrackingError: the store cannot be reached or written.
    """
    if overrides:
        raise LorascopeError(
            f"publish: {overrides[0]} would be ignored: it takes no settings. "
            "Run `lorascope publish` alone."
        )
    done, damaged = publish_all(layout)
    print(_told(done))
    for reason in damaged:
        print(f"skipped: {reason}", file=sys.stderr)
    return 1 if damaged else 0


def publish_all(layout: Layout) -> tuple[Publication, list[str]]:
    """Publish every record, and the answer of the study in params.yaml; what is damaged is left
    out, and told.

    Raises:
        TrackingError: the store cannot be reached or written.
    """
    # The folders of all modes lie side by side, so one mode's parent holds them all.
    trials, damaged_trials = _read_all(layout.trials("any").parent, _read_trial)
    scores, damaged_scores = _read_all(layout.evaluations("any").parent, _read_scores)
    done = publish(trials, scores, layout, study=_study(layout))
    return done, [*damaged_trials, *damaged_scores]


def _study(layout: Layout) -> StudyContent | None:
    """The answer of the declared study; None where there is none to tell yet."""
    from lorascope.study.request import grid_points

    if not layout.params.is_file():
        return None
    try:
        configs, _, _ = grid_points("publish", [], {}, True, layout)
        study = collect(configs, layout)
    except LorascopeError as error:
        print(f"without the answer of params.yaml's study: {error}", file=sys.stderr)
        return None
    return study_content(study, compare(study))


def _read_trial(folder: Path) -> TrialRecord:
    return read_record(folder, TrialRecord)


def _read_scores(folder: Path) -> EvaluationRecord:
    record = read_record(folder, EvaluationRecord)
    scored_items(record, folder)
    return record


def _read_all(folder: Path, read: Callable[[Path], R]) -> tuple[list[R], list[str]]:
    """The records under folder/<mode>/<name>/, and why others could not be read."""
    records, damaged = [], []
    for path in sorted(folder.glob(f"*/*/{RECORD}")):
        if path.parent.name.startswith("."):
            continue  # a scratch folder of a writer that is at work or was killed
        try:
            records.append(read(path.parent))
        except RecordError as error:
            damaged.append(str(error))
    return records, damaged


def _told(done: Publication) -> str:
    words = {None: "", True: "; the study's answer is new", False: "; its answer is as it was"}
    answer = words[done.study_changed]
    return (
        f"{done.where}: {done.trials_added} trials added, {done.trials_present} there already; "
        f"{done.sweeps_added} sweeps added; scores of {done.evaluations_added} trials added, "
        f"{done.evaluations_present} there already, {done.evaluations_without_trial} without a "
        f"run; {done.bases_added} bare bases added{answer}"
    )
