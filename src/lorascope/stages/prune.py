"""prune: show what no declared grid names, and delete it when told to."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.files.locks import FolderLocked, locked_folder, locked_folders
from lorascope.files.replacing import remove_folder
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table
from lorascope.study.grid import expand, with_overrides
from lorascope.study.intact import unprepared
from lorascope.study.leftovers import Found, Kind, Leftover, find_leftovers, is_in_use, needed
from lorascope.study.params import declared_overrides

YES = "--yes"


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Show leftovers; delete them where --yes is among `flags`.

    What params.yaml names stays, and what it names with the overrides in place of its axes: no
    override makes more go.

    Raises:
        LorascopeError: what the grids name is not known, or something could not be deleted.
    """
    found = find_leftovers(layout, needed(_named(configs, overrides, layout), layout))
    # After the search: a writer that it saw at work holds its lock, or has ended since.
    running = locked_folders(layout)
    going = [one for one in found.leftovers if not is_in_use(one, running)]
    in_use = [one for one in found.leftovers if is_in_use(one, running)]
    print(listing(found, going, in_use, layout.root), end="")
    if not going:
        return
    if YES not in flags:
        again = shlex.join(["lorascope", "prune", *overrides, YES])
        print(f"Nothing was deleted. `{again}` deletes the {len(going)} listed.")
        return
    _delete_all(going, layout)


def _named(configs: Sequence[Config], overrides: Sequence[str], layout: Layout) -> list[Config]:
    """The points of the grid of params.yaml, and `configs`, which the overrides make of it."""
    declared = declared_overrides(layout)
    grids = [(declared, expand(layout, declared) if overrides else list(configs))]
    if overrides:
        grids.append((with_overrides(declared, overrides), list(configs)))
    for grid, points in grids:
        lacking = unprepared(points, layout, grid)
        if lacking:
            commands = ", ".join(f"`{one.command}`" for one in lacking)
            raise LorascopeError(
                "prune: what the grid names is not known, so nothing was deleted: "
                f"{lacking[0].problem} Run {commands}; then prune again."
            )
    return [config for _, points in grids for config in points]


def listing(found: Found, going: list[Leftover], in_use: list[Leftover], root: Path) -> str:
    """What would go, what stays although no grid names it, and the sums."""
    if not found.leftovers:
        nothing = (
            "Nothing to prune: a declared grid names every trial, score and checkpoint here.\n"
        )
        return nothing + _passed_over(found, root)
    table = _table(going, root).plain() if going else ""
    total = units.size(sum(one.bytes for one in going))
    sums = (
        f"{len(going)} to delete, {total}; {found.named.total()} named by a declared grid stay.\n"
    )
    kept = [f"In use now, stays: {_shown(one.folder, root)}\n" for one in in_use]
    parts = [table, sums, "".join(kept), _passed_over(found, root), _all_would_go(found)]
    return "\n".join(part for part in parts if part)


def _table(leftovers: Sequence[Leftover], root: Path) -> Table[Leftover]:
    return Table(
        (
            Column("kind", "Kind", right=False),
            Column("status", "Status", right=False),
            Column("bytes", "Size", units.size),
            Column("folder", "Folder", lambda folder: _shown(folder, root), right=False),
        ),
        leftovers,
    )


def _shown(folder: Path, root: Path) -> str:
    return str(folder.relative_to(root))


def _passed_over(found: Found, root: Path) -> str:
    lines = [f"Left alone: {why.removeprefix(f'{root}/')}\n" for why in found.passed_over]
    return "".join(lines)


def _all_would_go(found: Found) -> str:
    """The one case in which the grid rather than the leftovers is probably wrong."""
    kinds = Counter(one.kind for one in found.leftovers if one.kind is not Kind.scratch)
    if kinds and not found.named:
        what = "nothing of what is here: everything would go"
    elif kinds[Kind.trial] and not found.named[Kind.trial]:
        what = f"none of the {kinds[Kind.trial]} trials here: all of them would go"
    else:
        return ""
    return (
        f"The study as declared names {what}. Their settings, base, data or the code that trained "
        "them differ from today's: are params.yaml and the commit those that you mean?\n"
    )


def _delete_all(leftovers: list[Leftover], layout: Layout) -> None:
    failed = []
    freed_bytes = 0
    for leftover in leftovers:
        try:
            # Gone already is as good: a writer may have ended since the search.
            with suppress(FileNotFoundError):
                _delete(leftover, layout)
            freed_bytes += leftover.bytes
        except (FolderLocked, OSError) as error:
            failed.append(f"{_shown(leftover.folder, layout.root)}: {error}")
    print(f"Deleted {len(leftovers) - len(failed)}, {units.size(freed_bytes)}.")
    if failed:
        raise LorascopeError("prune: not deleted: " + "; ".join(failed))


def _delete(leftover: Leftover, layout: Layout) -> None:
    """Delete one folder, while no one else can begin to write it."""
    if leftover.kind is Kind.checkpoints:
        remove_folder(leftover.folder)
        return
    with locked_folder(leftover.target, layout):
        if leftover.kind is Kind.scratch:
            shutil.rmtree(leftover.folder)
        else:
            remove_folder(leftover.folder)
