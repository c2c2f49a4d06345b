"""status: a line a mode, the best so far, what failed, and what to run next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lorascope.comparing.results import CellKey, cell_of
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.records import LASTING, TrialRecord
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
from lorascope.reporting.pages.summary import PAGE
from lorascope.reporting.tables.table import Column, Table
from lorascope.study.adoption import foreseen
from lorascope.study.command_result import CommandResult
from lorascope.study.grid import with_overrides
from lorascope.study.params import declared_overrides, stage_command
from lorascope.study.status import ModeStatus, SweepStatus, sweep_status

MODES = (
    Column("quant", "Mode", right=False),
    Column("declared", "Trials"),
    Column("completed", "Completed", get=lambda mode: _known(mode, len(mode.completed))),
    Column("failed", "Failed", right=False, get=lambda mode: _failed(mode) or None),
    Column("missing", "Missing", get=lambda mode: _known(mode, len(mode.missing))),
    Column("damaged", "Damaged", get=lambda mode: len(mode.damaged) or None),
    Column("training", "Training now", get=lambda mode: len(mode.training) or None),
    Column("scored", "Scored", get=lambda mode: _known(mode, len(mode.scores))),
    Column("base_scored", "Bare base", right=False, get=lambda mode: _known(mode, _base(mode))),
)


@dataclass(frozen=True)
class Best:
    """The best trial of a mode by one measure."""

    measure: str
    value: str
    trial: TrialRecord

    @property
    def cell(self) -> CellKey:
        return cell_of(self.trial.key)


@dataclass(frozen=True)
class Step:
    """Commands to run next."""

    commands: list[str]
    by_dvc: bool
    """Whether `dvc repro` would run the same."""


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> CommandResult:
    """Print the status of `configs`, the grid of params.yaml with `overrides` in place of its
    axes. 0 where nothing is left to run, else 1."""
    composed_from = with_overrides(declared_overrides(layout), overrides)
    status = sweep_status(list(configs), layout, composed_from, list(overrides))
    if layout.jobs.is_dir():
        from lorascope.execution.left_jobs import left_jobs

        running = [layout.root / folder for folder in status.running]
        status = replace(status, left_jobs=left_jobs(layout, running))
    print(status_text(status), end="")
    return CommandResult(int(next_step(status).commands != []), status_content(status))


def status_text(status: SweepStatus) -> str:
    """Plain text; parts of which there is nothing to say are left out."""
    modes = status.modes
    best = [one for mode in modes for one in best_of(mode)]
    failed = [f"{t.trial}: {t.status}, {_reason(t)}" for mode in modes for t in mode.failed]
    declared = sum(mode.declared for mode in modes)
    parts = [
        f"Model {status.model}, data {status.data}: {declared} trials declared.\n",
        Table(MODES, modes).plain(),
        _best_table(best).plain() if best else "",
        _settled(status),
        _listed("Failed", failed),
        _listed("Damaged", [reason for mode in modes for reason in mode.damaged]),
        _listed("Trained otherwise", foreseen([one for mode in modes for one in mode.former])),
        _listed("Not prepared", [missing.problem for missing in status.unprepared]),
        _listed("Running now", [str(folder) for folder in status.running]),
        _listed("Left by a command that was killed; the same one goes on with", status.left_jobs),
        _trained([trial for mode in modes for trial in mode.trials]),
        _next(status),
    ]
    return "\n".join(part for part in parts if part)


def _best_table(best: list[Best]) -> Table[Best]:
    """A row a mode and measure."""
    mode, *settings = cell_columns(row.cell for row in best)
    return Table(
        (
            mode,
            Column("measure", "Best so far by", right=False),
            Column("value", "Value"),
            *settings,
            Column("seed", "Seed", get=lambda row: row.trial.key.seed),
            Column("trial", "Trial", right=False, get=lambda row: row.trial.trial),
        ),
        best,
    )


def best_of(mode: ModeStatus) -> list[Best]:
    """The trials that lead on the validation split: by loss as trained, by accuracy as scored.

    Losses of different objectives are not ranked. Data that are scored by loss have no accuracy;
    their scored loss is the trained one again.
    """
    found = []
    losses = [(t.result.validation_loss_nats, t.trial, t) for t in mode.completed if t.result]
    if len({trial.objective for *_, trial in losses}) == 1:
        loss, _, trial = min(losses, key=lambda one: one[:2])
        found.append(Best("validation loss, nats", units.nats(loss), trial))
    # Each trial apart on its base where it is scored so, else in its other forms.
    apart = {s.trial_identity for s in mode.scores.values() if s.served is None}
    scored = [
        (scores.splits["validation"], t)
        for t in mode.completed
        for scores in mode.scores.values()
        if scores.trial_identity == t.identity
        and (scores.served is None or t.identity not in apart)
    ]
    # Among equals the one with the smaller loss.
    accuracies = [
        ((-score.accuracy, score.completion_loss_nats, trial.trial), score.accuracy, trial)
        for score, trial in scored
        if score.accuracy is not None
    ]
    if accuracies:
        _, accuracy, trial = min(accuracies, key=lambda one: one[0])
        found.append(Best("validation accuracy, %", units.percent(accuracy), trial))
    return found


def _known(mode: ModeStatus, value: object) -> object:
    return value if mode.nameable else None


def _base(mode: ModeStatus) -> str:
    return "scored" if mode.base_scored else "not scored"


def _failed(mode: ModeStatus) -> str:
    """1 diverged, 2 killed."""
    counts = Counter(trial.status for trial in mode.failed)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def _reason(trial: TrialRecord) -> str:
    """One line: a reason may quote a library at length."""
    return " ".join((trial.reason or "no reason recorded").split())


def _listed(title: str, lines: list[str]) -> str:
    return "".join([f"{title}:\n", *(f"  {line}\n" for line in lines)]) if lines else ""


def _trained(trials: list[TrialRecord]) -> str:
    """What all trainings took that came to a result."""
    results = [trial.result for trial in trials if trial.result is not None]
    if not results:
        return ""
    tokens = sum(result.processed_tokens for result in results)
    # Trials that were trained at once share their seconds.
    seconds = sum(result.train_seconds / result.trials_at_once for result in results)
    resumed = sum(result.resumed_at_step > 0 for result in results)
    partly = f" ({resumed} resumed: their seconds count from there)" if resumed else ""
    return (
        f"Trained so far: {units.count(tokens)} tokens in {units.seconds(seconds)} s, by the "
        f"records of {len(results)} trials{partly}.\n"
    )


def _settled(status: SweepStatus) -> str:
    """How far a settling is: what is missing beside it stays untrained."""
    if not status.settled or "needed" not in status.settled:
        return ""
    needed, wanted, others = (len(status.settled[k]) for k in ("needed", "wanted", "unneeded"))
    declared = needed + wanted + others
    end = "the answer stands; the others stay untrained"
    if wanted:
        end = status.settled["stopped"] or f"{wanted} more are wanted now"
    return f"search: settle: {needed} of {declared} declared trials are needed ({end}).\n"


def status_content(status: SweepStatus) -> dict[str, object]:
    """What `--json` prints."""
    step = next_step(status)
    return {
        "model": status.model,
        "data": status.data,
        "complete": not step.commands,
        "modes": [_mode_content(mode) for mode in status.modes],
        "unprepared": [missing.problem for missing in status.unprepared],
        "running": [str(folder) for folder in status.running],
        "left_jobs": status.left_jobs,
        "settled": status.settled,
        "reported": status.reported,
        "next": step.commands,
    }


def _mode_content(mode: ModeStatus) -> dict[str, object]:
    return {
        "quant": mode.quant,
        "declared": mode.declared,
        "completed": [trial.trial for trial in mode.completed],
        "failed": [
            {"trial": trial.trial, "status": trial.status, "reason": trial.reason}
            for trial in mode.failed
        ],
        "missing": mode.missing,
        "damaged": mode.damaged,
        "training": mode.training,
        "scored": sorted(mode.scores),
        "to_score": mode.to_score,
        "base_scored": mode.base_scored,
        "best": [{"by": one.measure, "trial": one.trial.trial} for one in best_of(mode)],
    }


def _next(status: SweepStatus) -> str:
    step = next_step(status)
    if not step.commands:
        page = f"reports/{PAGE}"
        return f"Nothing is left to run. `lorascope summary` prints the answer, {page} shows why.\n"
    title = "Next"
    if any(mode.damaged for mode in status.modes):
        title += ", once what is damaged is deleted"
    if status.running:
        title += ", when what runs now has ended"
    if step.by_dvc and not status.given:
        title += " (or all that remains by `dvc repro`)"
    return _listed(title, step.commands)


def next_step(status: SweepStatus) -> Step:
    """What brings the study further; no command where its report is made of all that is there."""
    if status.unprepared:
        return Step([missing.command for missing in status.unprepared], by_dvc=True)
    if status.settled is not None and status.settled.get("wanted", True):
        return Step([stage_command("settle", status.overrides)], by_dvc=True)
    report = [] if status.reported else [shlex.join(["lorascope", "report", *status.given])]
    if status.settled is not None:
        return Step(report, by_dvc=True)
    modes = status.modes
    again = [trial for mode in modes for trial in mode.failed if trial.status not in LASTING]
    unrecorded = sum(mode.declared - len(mode.trials) for mode in modes)
    if again or unrecorded:
        # DVC takes a stage for done whose trials all have a record, a failure too.
        train = stage_command("train-lora", status.overrides)
        return Step([train], by_dvc=unrecorded > 0 and not again)
    if any(len(mode.scores) < mode.to_score or not mode.base_scored for mode in modes):
        return Step([stage_command("evaluate", status.overrides)], by_dvc=True)
    return Step(report, by_dvc=False)
