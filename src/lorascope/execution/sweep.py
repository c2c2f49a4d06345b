"""train-lora: what is missing of a sweep, trained in packs, each trial kept by its content."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from lorascope.adapters.kinds import rank_of
from lorascope.config import Config
from lorascope.errors import LorascopeError, RecordError
from lorascope.execution.engine import Slot
from lorascope.execution.kinds import engine_of
from lorascope.execution.pack_run import PackEnd, SweepPlace, train_and_keep
from lorascope.execution.packs import Pack, Trial, in_slots, packs_of, saved_packs, work_at_rank
from lorascope.execution.progress import SweepProgress
from lorascope.execution.stop import stop_request
from lorascope.files.layout import Layout
from lorascope.files.locks import LOOK_SECONDS, FolderLocked, locked_folder
from lorascope.files.replacing import finish_replacements
from lorascope.files.store import read_record, write_record
from lorascope.records import LASTING, Status, TrialRecord
from lorascope.study.adoption import take_over_known
from lorascope.study.declared import declare_trial, read_trial
from lorascope.study.intact import require_adapter, require_data, require_stored
from lorascope.tracking import LiveTracking
from lorascope.tracking.connection import prepare_in_background

FEWEST_TRIALS = 2
"""Trials in each of several packs at least: below that nothing is shared."""


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
    different = {t.identity: t for t in trials}
    take_over_known(trials, layout)
    known = _known(different)
    _tell_known(list(known.values()))
    missing = [trial for name, trial in different.items() if name not in known]
    if missing:
        _train_missing(list(different.values()), missing, list(known.values()), layout)
    return [read_record(trial.folder, TrialRecord) for trial in trials]


def _train_missing(
    declared: Sequence[Trial], missing: Sequence[Trial], known: list[TrialRecord], layout: Layout
) -> None:
    runtime = missing[0].config.runtime
    engine = engine_of(missing[0].config, layout)
    # Both take seconds, in which the inputs are read; the command line has begun with the first.
    engine.prepare()
    if runtime.tracking:
        prepare_in_background(layout)
    _require_inputs(missing, layout)
    # It follows from what is declared, not from what is missing: numbers depend on the threads, if
    # only by rounding, and a sweep that goes on must end as if it had not stopped.
    count = len(engine.slots(len(declared) // FEWEST_TRIALS))
    show = SweepProgress(len(declared), count)
    show.add_known(known)
    live = LiveTracking(layout, runtime.live_seconds) if runtime.is_live else None
    with stop_request(on_first=show.leave) as stop, show, live or nullcontext():
        show.start()
        engine.await_ready()
        here = SweepPlace(layout, engine, show, stop, live)
        packs = _unfinished(declared, missing, count, layout, engine.underway())
        end = _train_packs(packs, count, here)
        names = set(end.postponed)
        postponed = [trial for trial in missing if trial.name in names]
        if postponed:
            # They have the machine for themselves.
            end.add(_train_packs(_unfinished(postponed, postponed, 1, layout), 1, here))
        # What calls us, such as DVC, must not go on either.
        stop.end_if_asked()
    if end.errors:
        raise end.errors[0] if len(end.errors) == 1 else _several(end.errors)


def _unfinished(
    declared: Sequence[Trial],
    missing: Sequence[Trial],
    slots: int,
    layout: Layout,
    underway: Sequence[Sequence[str]] = (),
) -> list[list[Trial]]:
    """The packs to train. First those `underway`, which a killed sweep left at work. Then what a
    stopped sweep saved: packs that this sweep makes too, so that it ends as if undisturbed, then
    others. Then what is missing as a whole of the packs that are declared, and the rest, packed
    anew. Of one base those that take longest are trained first, so that the last ones end at about
    the same time."""
    left = {trial.identity: trial for trial in missing}
    most = missing[0].config.runtime.pack_trials
    whole = [[trial.identity for trial in pack] for pack in packs_of(declared, slots)]
    saved = [pack for pack in saved_packs(layout, left) if len(pack) <= most]
    whole_saved = [pack for pack in saved if pack in whole]
    packs = []
    for identities in [*underway, *whole_saved, *saved, *whole]:
        if left.keys() >= set(identities):
            packs.append([left.pop(identity) for identity in identities])
    packs += packs_of(list(left.values()), slots)
    return sorted(packs, key=lambda pack: sum(trial.work for trial in pack), reverse=True)


def _train_packs(packs: Sequence[Pack], slots: int, here: SweepPlace) -> PackEnd:
    """Train what is missing of `packs`, so many at the same time. Those that other sweeps train
    come last: so sweeps on several computers divide them, and one that dies leaves its own to the
    others."""
    end = PackEnd(taken=list(packs))
    waits = False
    while left := end.taken:
        end.taken = []
        work = partial(_train_locked, here, waits=waits)
        # Once others have all that is left, one of them is waited for, and then all are tried.
        tried, others = (left[:1], left[1:]) if waits else (left, [])
        for one in in_slots(tried, here.engine.slots(slots), work, here.stop):
            end.add(one)
        waits = not waits and len(end.taken) == len(left)
        end.taken += others
    return end


def _trial(config: Config, layout: Layout) -> Trial:
    width = _hidden_size(layout.quantized(config.model.name, config.quant.name))
    work = work_at_rank(rank_of(config.adapter), width) if width else 1.0
    return Trial(**vars(declare_trial(config, layout)), work=work)


def _hidden_size(base: Path) -> int | None:
    """None where it has another name, as in a few architectures: all trials then count alike. A
    damaged base is told where it is held against its record."""
    try:
        values = json.loads((base / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return values.get("hidden_size") if isinstance(values, dict) else None


def _require_inputs(trials: Sequence[Trial], layout: Layout) -> None:
    """Hold each base and dataset against its record, once: a large base takes seconds to read."""
    configs = [trial.config for trial in trials]
    for config in {(one.model.name, one.quant.name): one for one in configs}.values():
        require_stored(config, layout)
    for config in {(one.model.name, one.data.name): one for one in configs}.values():
        require_data(config, layout)


def _known(trials: Mapping[str, Trial]) -> dict[str, TrialRecord]:
    """The records of those that are there; RecordError where some are not what was trained."""
    known, damaged = {}, []
    for name, trial in trials.items():
        try:
            if record := _lasting_record(trial):
                known[name] = record
        except RecordError as error:
            damaged.append(error)
    if damaged:
        lines = "\n".join(f"  {error}" for error in damaged)
        raise damaged[0] if len(damaged) == 1 else RecordError(f"not as trained:\n{lines}")
    return known


def _lasting_record(trial: Trial) -> TrialRecord | None:
    """Of a trial that is there as it was trained: to train it no more is to use it."""
    if not trial.is_recorded:
        return None
    record = read_trial(trial, trial.folder)
    if record.status is Status.completed:
        require_adapter(record, trial.folder)
    return record if record.status in LASTING else None


def _tell_known(records: Sequence[TrialRecord]) -> None:
    if len(records) > 1:
        print(f"{len(records)} trials are there already", flush=True)
    elif records:
        print(f"{records[0].trial}: {records[0].status} already", flush=True)


def _train_locked(place: SweepPlace, pack: Pack, slot: Slot, waits: bool = True) -> PackEnd:
    """Train what another sweep has not finished meanwhile.

    Args:
        waits: whether to wait for a sweep that trains some of it now, until somebody stops this
            one; else it is left for later.
    """
    parent, stop = pack[0].folder.parent, place.stop
    with ExitStack() as locks:
        # In one order everywhere: two sweeps never wait for each other.
        for folder in sorted(trial.folder for trial in pack):
            seconds = None if waits else LOOK_SECONDS
            lock = locked_folder(folder, place.layout, seconds, lambda: stop.asked, place.show.note)
            try:
                locks.enter_context(lock)
            except FolderLocked:
                stop.end_if_asked()
                if not waits:
                    return PackEnd(taken=[pack])
                raise
        # Whoever held a lock before may have been killed.
        finish_replacements(parent)
        known = [record for trial in pack if (record := _lasting_record(trial))]
        place.show.add_found(known)
        left = [trial for trial in pack if trial.name not in {r.trial for r in known}]
        if not left:
            return PackEnd()
        end = train_and_keep(left, place, slot)
        # The trials are safe before anyone talks to a tracking store.
        told = _tracked(end.records, left[0].config, place.layout)
        for record in told:
            write_record(parent / record.trial, record)
        if end.unsaved:
            # What is trained next would be lost too.
            names = ", ".join(end.unsaved)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{parent}: {names}")
        return end


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
