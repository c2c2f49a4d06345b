"""Mirror every record of the project into MLflow, or write it for another tracker: closes the gap
that skipped stages leave."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lorascope.comparing.findings import compare
from lorascope.config import Config
from lorascope.errors import ConfigError, LorascopeError, RecordError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.records import EvaluationRecord, TrialRecord
from lorascope.reporting.tracked_study import study_content
from lorascope.study.collect import collect
from lorascope.study.intact_scores import scored_items
from lorascope.tracking import Publication, StudyContent, publish
from lorascope.tracking.exported import exported_runs

R = TypeVar("R")

WRITERS = ("tensorboard", "wandb")


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> int:
    """Publish what can be read, and scores that are those of their items; 1 where something was
    damaged, else 0.

    Raises:
        ConfigError: a word is no option, what it needs is not installed, or nothing is shipped.
        TrackingError: the store cannot be reached or written.
    """
    given = _options(overrides)
    if given.to is None:
        done, damaged = publish_all(layout, given.register)
        print(_told(done))
    else:
        told, damaged = _export(given.to, layout)
        print(told)
    for reason in damaged:
        print(f"skipped: {reason}", file=sys.stderr)
    return 1 if damaged else 0


@dataclass(frozen=True)
class Options:
    """What a command line may say."""

    to: str | None = None
    """Another tracker than MLflow."""
    register: str | None = None
    """Name of a registered model of MLflow."""


def _options(words: Sequence[str]) -> Options:
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in ("to", "register") or not equals or not value:
            raise ConfigError(
                "publish", word, "it takes no settings",
                "Run `lorascope publish` alone, with register=NAME, or with to=tensorboard or "
                "to=wandb.",
            )  # fmt: skip
        given[key] = value
    if given.get("to", WRITERS[0]) not in WRITERS:
        raise ConfigError(
            "to", given["to"], "no tracker that records are written for",
            f"Use {' or '.join(WRITERS)}, or leave it out for MLflow.",
        )  # fmt: skip
    if len(given) > 1:
        raise ConfigError(
            "register", given["register"], f"MLflow registers models, {given['to']} does not here",
            "Give one of the two words.",
        )  # fmt: skip
    return Options(**given)


def publish_all(layout: Layout, register: str | None = None) -> tuple[Publication, list[str]]:
    """Publish every record, and the answer of the study in params.yaml; what is damaged is left
    out, and told.

    Args:
        register: a registered model that gets the shipped adapter as a version.

    Raises:
        ConfigError: something is to be registered, and nothing is shipped.
        TrackingError: the store cannot be reached or written.
    """
    trials, scores, damaged = _records(layout)
    study = _study(layout)
    if register is None:
        return publish(trials, scores, layout, study=study), damaged
    if study is None or study.merge is None:
        raise ConfigError(
            "register", register, "nothing is shipped yet by the study in params.yaml",
            "Run `lorascope merge` first: it merges what `ship` names.",
        )  # fmt: skip
    return publish(trials, scores, layout, study=study, register=register), damaged


def _export(to: str, layout: Layout) -> tuple[str, list[str]]:
    """Write every record for another tracker; what was written, and what is damaged."""
    from lorascope.tracking.tensorboard import write_tensorboard
    from lorascope.tracking.weights_and_biases import write_wandb

    trials, scores, damaged = _records(layout)
    study = _study(layout)
    runs = exported_runs(trials, scores, study.bases if study else ())
    folder = layout.root / "exports" / to
    {"tensorboard": write_tensorboard, "wandb": write_wandb}[to](runs, folder)
    place = folder.relative_to(layout.root)
    then = {
        "tensorboard": f"`tensorboard --logdir {place}` shows them",
        "wandb": f"`wandb sync --sync-all` in {place} uploads them",
    }
    return f"wrote {len(runs)} runs to {place}: {then[to]}", damaged


def _records(layout: Layout) -> tuple[list[TrialRecord], list[EvaluationRecord], list[str]]:
    """All trials and scores, and what is damaged."""
    # The folders of all modes lie side by side, so one mode's parent holds them all.
    trials, damaged_trials = _read_all(layout.trials("any").parent, _read_trial)
    scores, damaged_scores = _read_all(layout.evaluations("any").parent, _read_scores)
    return trials, scores, [*damaged_trials, *damaged_scores]


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
    registered = f"; registered as {done.registered}" if done.registered else ""
    return (
        f"{done.where}: {done.trials_added} trials added, {done.trials_present} there already; "
        f"{done.sweeps_added} sweeps added; scores of {done.evaluations_added} trials added, "
        f"{done.evaluations_present} there already, {done.evaluations_without_trial} without a "
        f"run; {done.bases_added} bare bases added{answer}{registered}"
    )
