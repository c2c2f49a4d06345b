"""train-lora: what is missing of a sweep, trained in packs, each trial kept by its content."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.layout import RECORD, Layout
from lorascope.records import LASTING, TrialRecord
from lorascope.stages.declared import DeclaredTrial, declare_trial
from lorascope.stages.intact import require_data, require_stored
from lorascope.stages.pack_run import train_and_keep
from lorascope.stages.packs import packs_of
from lorascope.stages.sweep_progress import SweepProgress
from lorascope.stop_request import StopRequest, stop_request
from lorascope.store import finish_replacements, read_record, write_record
from lorascope.trial_locks import locked_folder


@dataclass(frozen=True)
class Trial:
    """One that a sweep declares."""

    config: Config
    declared: DeclaredTrial
    folder: Path


def run(config: Config, layout: Layout) -> TrialRecord:
    """Train the trial that `config` describes, unless it is there already."""
    return run_sweep([config], layout)[0]


def run_sweep(configs: Sequence[Config], layout: Layout) -> list[TrialRecord]:
    """Train what is missing of `configs`; their records in the same order.

    A pack that fails does not end the sweep: the others are trained first.

    Raises:
        LorascopeError: a trial's settings or inputs are unusable, or trials failed.
    """
    trials = [_trial(config, layout) for config in configs]
    for parent in {trial.folder.parent for trial in trials}:
        finish_replacements(parent)
    different = {t.declared.identity: t for t in trials}
    known = {name: record for name, t in different.items() if (record := _lasting_record(t))}
    _tell_known(list(known.values()))
    missing = [trial for name, trial in different.items() if name not in known]
    _require_inputs(missing, layout)
    show = SweepProgress(len(different))
    show.add_known(list(known.values()))
    errors: list[Exception] = []
    with stop_request(on_first=show.leave) as stop, show:
        for pack in packs_of(missing, lambda trial: trial.config):
            stop.end_if_asked()
            errors += _train_locked(pack, layout, show, stop)
        # What calls us, such as DVC, must not go on either.
        stop.end_if_asked()
    if errors:
        raise errors[0] if len(errors) == 1 else _several(errors)
    return [read_record(trial.folder, TrialRecord) for trial in trials]


def _trial(config: Config, layout: Layout) -> Trial:
    declared = declare_trial(config, layout)
    return Trial(config, declared, layout.trials(config.quant.name) / declared.name)


def _require_inputs(trials: Sequence[Trial], layout: Layout) -> None:
    """Hold each base and dataset against its record, once: a large base takes seconds to read."""
    configs = [trial.config for trial in trials]
    for config in {(one.model.name, one.quant.name): one for one in configs}.values():
        require_stored(config, layout)
    for config in {(one.model.name, one.data.name): one for one in configs}.values():
        require_data(config, layout)


def _lasting_record(trial: Trial) -> TrialRecord | None:
    if not (trial.folder / RECORD).is_file():
        return None
    record = read_record(trial.folder, TrialRecord)
    return record if record.status in LASTING else None


def _tell_known(records: Sequence[TrialRecord]) -> None:
    if len(records) > 1:
        print(f"{len(records)} trials are there already", flush=True)
    elif records:
        print(f"{records[0].trial}: {records[0].status} already", flush=True)


def _train_locked(
    pack: Sequence[Trial], layout: Layout, show: SweepProgress, stop: StopRequest
) -> list[Exception]:
    """Train what another sweep has not finished meanwhile; what went wrong."""
    with ExitStack() as locks:
        # In one order everywhere: two sweeps never wait for each other.
        for trial in sorted(pack, key=lambda trial: trial.folder):
            locks.enter_context(locked_folder(trial.folder, layout, wait_seconds=None))
        # Whoever held a lock before may have been killed.
        finish_replacements(pack[0].folder.parent)
        known = [record for trial in pack if (record := _lasting_record(trial))]
        show.add_known(known)
        left = [trial for trial in pack if trial.declared.name not in {r.trial for r in known}]
        if not left:
            return []
        own = [(trial.config, trial.declared) for trial in left]
        kept, errors = train_and_keep(own, layout, left[0].folder.parent, show, stop)
        # The trials are safe before anyone talks to a tracking store.
        for record in _tracked(kept, left[0].config, layout):
            write_record(left[0].folder.parent / record.trial, record)
        return errors


def _tracked(
    records: Sequence[TrialRecord], config: Config, layout: Layout
) -> Sequence[TrialRecord]:
    """The records with what became of publishing them."""
    if not config.runtime.tracking or not records:
        return records
    from lorascope.tracking import try_publish

    attempt = try_publish([replace(r, tracking="published") for r in records], [], layout)
    return [
        replace(r, tracking=attempt.state, tracking_run=attempt.runs.get(r.identity))
        for r in records
    ]


def _several(errors: Sequence[Exception]) -> LorascopeError:
    lines = [f"  {str(error) or type(error).__name__}" for error in errors]
    return LorascopeError("\n".join([f"{len(errors)} trials or packs failed:", *lines]))
