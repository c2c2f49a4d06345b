"""Which trials of a sweep are trained at once, packs side by side, and packs that were saved."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from lorascope.adapters.kinds import is_packed, kind_of, rank_of
from lorascope.config import Config
from lorascope.config.objectives import DECIDES_WORK, READ_BY
from lorascope.counting.parameters import padded_rank
from lorascope.execution.stop import StopRequest
from lorascope.files.layout import Layout
from lorascope.files.replacing import write_atomically
from lorascope.files.revisions import canonical_sha256
from lorascope.study.declared import DeclaredTrial
from lorascope.training.checkpoint import checkpoints, last_checkpoint, step_of

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

OWN = (
    "learning_rate", "layer_rate_decay", "layer_drop", "weight_decay", "max_gradient_norm",
    *(setting for setting in READ_BY if setting not in DECIDES_WORK),
)  # fmt: skip
"""What each trial of a pack may have for itself of its training; its kind of adapter says what of
that."""
LATER = ("merge", "decide", "seed", "serve", "search", "ship")
"""The seed is each trial's own too; the others concern what comes after training."""

TRIALS = "trials.json"
"""Identities of a pack's trials in their order, beside its checkpoints."""


@dataclass(frozen=True)
class Trial(DeclaredTrial):
    """A trial that a sweep declares."""

    work: float
    """How long its training step takes, where that of the base alone takes 1."""


Pack = Sequence[Trial]


def packs_of(trials: Sequence[Trial], slots: int = 1) -> list[list[Trial]]:
    """Trials that share base, data and steps, by rank, at most runtime.pack_trials in each pack.

    Neighbouring ranks come together, and packs of one base and data take about equally long.

    Args:
        slots: packs that are trained at the same time.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(shared_settings(trial.config), []).append(trial)
    packs = []
    for group in groups.values():
        first = group[0].config
        most = first.runtime.pack_trials if is_packed(first.adapter) else 1
        by_rank = sorted(group, key=lambda trial: rank_of(trial.config.adapter))
        packs += _split_evenly(by_rank, most, slots)
    return packs


def work_at_rank(rank: int, hidden_size: int) -> float:
    """How long a training step takes, where the base alone takes 1: an adapter whose rank is the
    base's own width takes as long again. (Measured on one thread, width 128: four trials of ranks
    16 to 128 take 1.5 times as long as four of ranks 1 to 8; this says 1.38.)"""
    return 1.0 + padded_rank(rank) / hidden_size


def _split_evenly(trials: Pack, most: int, slots: int) -> list[list[Trial]]:
    """Neighbours together, at most `most` in a part, parts of about equal work; their number is a
    multiple of `slots` where there are so many trials."""
    whole = sum(trial.work for trial in trials)
    count = slots
    while True:
        parts: list[list[Trial]] = [[] for _ in range(count)]
        before = 0.0
        for trial in trials:
            parts[int((before + trial.work / 2) / whole * count)].append(trial)
            before += trial.work
        if max(len(part) for part in parts) <= most:
            return [part for part in parts if part]
        count += slots


def shared_settings(config: Config) -> str:
    """Equal for trials that can be trained at once."""
    values: dict[str, Any] = {**asdict(config), "kind": config.adapter.kind}
    rate = config.train.learning_rate * config.adapter.learning_rate_factor
    own = ("learning_rate_factor", *kind_of(config.adapter).packed)
    # Memory of a pack is planned by its first trial, and these need more.
    values["drops"] = config.train.layer_drop > 0
    for group, names in (("adapter", own), ("train", OWN)):
        for name in names:
            del values[group][name]
    # Memory of a pack is planned by rank, and these need more.
    values["subtracts"] = config.adapter.subtracts()
    # That schedule ends at an absolute rate.
    values["train"]["learning_rate"] = rate if config.train.schedule == "polynomial" else None
    for name in LATER:
        del values[name]
    return json.dumps(values, sort_keys=True)


def in_slots(
    packs: Sequence[T], slots: Sequence[S], work: Callable[[T, S], R], stop: StopRequest
) -> list[R]:
    """`work(pack, slot)` for each pack, each in a slot that is free; results in the same order.

    Where one raises, those that run are waited for, no others are started, and its exception is
    raised. What interrupts this call itself, such as Ctrl-C, ends the jobs that run at once: work
    must clean up and return.
    """
    free: SimpleQueue[S] = SimpleQueue()
    for slot in slots:
        free.put(slot)

    def in_free_slot(pack: T) -> R:
        slot = free.get()
        try:
            return work(pack, slot)
        finally:
            free.put(slot)

    with ThreadPoolExecutor(len(slots)) as pool:
        try:
            futures = [pool.submit(in_free_slot, pack) for pack in packs]
            _, left = wait(futures, return_when=FIRST_EXCEPTION)
            for future in left:
                future.cancel()
            wait(left)
        except BaseException:
            # In this order: whoever ends at once must find nothing to go on with.
            pool.shutdown(wait=False, cancel_futures=True)
            stop.stop_at_once()
            raise
    failed = [error for f in futures if not f.cancelled() and (error := f.exception())]
    for error in failed[1:]:
        if isinstance(error, Exception):
            print(f"lorascope: {error}", file=sys.stderr, flush=True)
    if failed:
        raise failed[0]
    return [future.result() for future in futures]


@contextmanager
def checkpoint_folder(identities: Sequence[str], layout: Layout) -> Iterator[Path]:
    """Where the pack of these trials keeps checkpoints, called by the first one and by all of them:
    another pack must not resume from here. It goes afterwards, unless there are some."""
    folder = layout.checkpoints / identities[0] / canonical_sha256(list(identities))
    try:
        write_atomically(folder / TRIALS, json.dumps(list(identities)).encode())
        yield folder
    finally:
        if not checkpoints(folder):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                # Another pack may begin with the same trial.
                folder.parent.rmdir()


def saved_packs(layout: Layout, wanted: Collection[str]) -> list[list[str]]:
    """Identities of the trials of each pack that has a whole checkpoint and nothing but `wanted`
    trials, in the pack's order; what took most steps, over all its trials, comes first."""
    found: list[tuple[int, list[str]]] = []
    for note in sorted(layout.checkpoints.glob(f"*/*/{TRIALS}")):
        identities = _identities(note)
        # Judged before its files, which may be large, are read.
        if not identities or not set(identities) <= set(wanted):
            continue
        # Another sweep may be saving there, and deleting what came before.
        with suppress(OSError):
            last = last_checkpoint(note.parent)
            if last is not None:
                found.append((step_of(last) * len(identities), identities))
    found.sort(key=lambda one: one[0], reverse=True)
    return [identities for _, identities in found]


def _identities(note: Path) -> list[str]:
    """Empty where the note is damaged: its folder is called by what it should say."""
    try:
        identities = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return []
    told = isinstance(identities, list) and canonical_sha256(identities) == note.parent.name
    return identities if told else []
