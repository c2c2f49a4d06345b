"""Publishing: records that the store lacks are added, and the rest stays as it is. Each run is
written whole, closed on every way out, and written once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lorascope.errors import clause
from lorascope.files.layout import Layout
from lorascope.records import EvaluationRecord, TrialRecord
from lorascope.tracking.connection import (
    TURN_SECONDS,
    TrackingError,
    configure_environment,
    failures_as_tracking_errors,
    locked,
    presentable,
    store_uri,
)
from lorascope.tracking.study_content import BareBase, StudyContent
from lorascope.tracking.writer import connected

T = TypeVar("T")
R = TypeVar("R")

TURN = 10
"""Trials that are published while other writers wait, at up to a second each."""


@dataclass(frozen=True)
class Publication:
    """Result of one publishing."""

    where: str
    """The store's address, without credentials, relative to the project."""
    sweeps_added: int
    trials_added: int
    trials_present: int
    """Trials that the store had already."""
    evaluations_added: int
    evaluations_present: int
    evaluations_without_trial: int
    """Scores of a trial that the store does not have, or of a bare base of another study: they have
    no run."""
    bases_added: int
    """Bare bases whose run or scores were added."""
    study_changed: bool | None
    """Whether the answer or its figures had changed; None where no study was given."""
    registered: str | None
    """The version of a registered model that the shipped adapter is; None unless asked for."""
    runs: dict[str, str]
    """Trial identity -> id of its run."""


@dataclass(frozen=True)
class Attempt:
    """Outcome of an attempt to publish."""

    state: str
    """'published', or in one line why not."""
    runs: dict[str, str]
    """Trial identity -> id of its run; empty where nothing was published."""


def publish(
    trials: Sequence[TrialRecord],
    evaluations: Sequence[EvaluationRecord],
    layout: Layout,
    bases: Sequence[BareBase] = (),
    study: StudyContent | None = None,
    register: str | None = None,
) -> Publication:
    """Add what the store lacks: a parent run per sweep, a child run per trial, one per bare base,
    scores, and the answer of `study` in a run above them.

    Runs that are there already stay as they are; a trial that was run again gets another run.
    Scores are compared: those missing are added, and those that a newer evaluation changed get a
    newer point.

    Args:
        register: a registered model, of which what `study` ships becomes a version.

    Raises:
        TrackingError: the store cannot be reached or written.
    """
    configure_environment()
    with failures_as_tracking_errors(layout), locked(layout):
        writer = connected(layout)
    newest = sorted(evaluations, key=lambda e: e.provenance.created_utc)
    by_trial = {(e.trial_identity, e.form): e for e in newest if e.trial_identity and e.key}
    every = {base.scores.identity: base for base in [*bases, *(study.bases if study else ())]}
    with failures_as_tracking_errors(layout):
        added = _in_turns(layout, writer.add_trial, trials)
        scored = _in_turns(layout, writer.add_scores, list(by_trial.values()))
        bases_added = _in_turns(layout, writer.add_base, list(every.values()))
        with locked(layout):
            study_changed = writer.add_study(study, trials) if study else None
            merge = study.merge if study and register else None
            version = writer.register(register, merge, trials) if register and merge else None
    known = every.keys()
    unknown = [e for e in newest if not e.trial_identity and e.identity not in known]
    return Publication(
        where=presentable(store_uri(layout), layout),
        sweeps_added=writer.sweeps_added,
        trials_added=added.count(True),
        trials_present=added.count(False),
        evaluations_added=scored.count(True),
        evaluations_present=scored.count(False),
        evaluations_without_trial=scored.count(None) + len(unknown),
        bases_added=bases_added.count(True),
        study_changed=study_changed,
        registered=f"{register} version {version}" if version else None,
        runs=writer.runs,
    )


def _in_turns(layout: Layout, add: Callable[[T], R], ones: Sequence[T]) -> list[R]:
    """What `add` returns of each. Other writers, such as a sweep whose trial has ended, come in
    between: a whole project takes minutes."""
    results = []
    for start in range(0, len(ones), TURN):
        if start:
            time.sleep(TURN_SECONDS)
        with locked(layout):
            results += [add(one) for one in ones[start : start + TURN]]
    return results


def try_publish(
    trials: Sequence[TrialRecord],
    evaluations: Sequence[EvaluationRecord],
    layout: Layout,
    bases: Sequence[BareBase] = (),
) -> Attempt:
    """Publish; a store that cannot be reached is printed as a warning: the run goes on.

    A store that could not be reached is not tried again by this process: each try can take 20 s.
    """
    uri = store_uri(layout)
    if uri in _unreachable:
        return Attempt(_unreachable[uri], {})
    try:
        done = publish(trials, evaluations, layout, bases)
    except TrackingError as error:
        _unreachable[uri] = reason = presentable(str(error), layout)
        print(
            f"warning: not published to MLflow: {clause(reason)}. The records are kept; "
            "`lorascope publish` fills it in later.",
            file=sys.stderr,
        )
        return Attempt(reason, {})
    return Attempt("published", done.runs)


_unreachable: dict[str, str] = {}
"""Tracking stores that failed in this process, and why."""
