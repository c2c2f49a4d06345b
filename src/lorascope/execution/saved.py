"""Packs that a stopped sweep saved: where their checkpoints lie, and whose they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lorascope.files.identity import canonical_sha256
from lorascope.files.layout import Layout
from lorascope.files.store import write_atomically
from lorascope.training.checkpoint import checkpoints, last_checkpoint, step_of

TRIALS = "trials.json"
"""Identities of a pack's trials in their order, beside its checkpoints."""


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
