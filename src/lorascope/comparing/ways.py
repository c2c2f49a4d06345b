"""Ways to serve one adapter in one mode: kept apart, merged afterwards, trained for the mode."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from lorascope.comparing.cells import CellData, Compared
from lorascope.comparing.pairs import Pair, compare_all
from lorascope.comparing.results import CellKey, Comparison, Pairing

MAY_DIFFER = ("base", "quant.", "train.qat")
"""How the names of settings begin in which ways differ: all others are equal."""


class Way(StrEnum):
    """What was trained, and what became of it."""

    apart = "adapter apart"
    """Trained on a base that is stored in the mode, and served beside it."""
    afterwards = "merged, then stored"
    """Trained without regard to the mode: post-training quantization."""
    through = "trained through the merge"
    """Trained while the merged weights were rounded as they are then stored: quantization-aware
    training."""


@dataclass(frozen=True)
class ServedWay:
    """One way to serve in one mode, and what it is held against."""

    mode: str
    way: Way
    cell: CellKey
    group: int
    """Number of the settings that all ways beside it share."""
    against_reference: Comparison | None
    """Minus the reference mode's adapter apart; None of that itself."""
    against_afterwards: Comparison | None
    """Minus what was trained on the reference mode, merged and stored afterwards; None of that
    itself, and where the study has none."""
    against_apart: Comparison | None
    """Minus the adapter apart on a base of the mode; of what was trained through the merge."""


@dataclass(frozen=True)
class _Member:
    mode: str
    way: Way
    data: CellData


def served_ways(
    compared: Compared, reference_quant: str, far: Collection[CellKey]
) -> tuple[ServedWay, ...]:
    """All ways of every mode that is served in several, equal settings together.

    Args:
        far: cells that lie far behind, whose spread between seeds is not that of others.

    Comparisons are on test items, corrected for their number (Holm) apart from those of the rest
    of the study.
    """
    rows = [
        (number, *row)
        for number, group in enumerate(_alike(compared))
        for row in _held(group, reference_quant)
    ]
    wanted = {
        (pair.subject.cell, pair.reference.cell): pair
        for *_, pairs in rows
        for pair in pairs
        if pair is not None
    }
    compared_pairs = compare_all(list(wanted.values()), compared, far, lambda pair: 1)
    known = {(one.subject, one.reference): one for one in compared_pairs}

    def found(pair: Pair | None) -> Comparison | None:
        return known.get((pair.subject.cell, pair.reference.cell)) if pair else None

    return tuple(
        ServedWay(member.mode, member.way, member.data.cell, number, *map(found, pairs))
        for number, member, pairs in rows
    )


def _alike(compared: Compared) -> list[list[_Member]]:
    """Scored configurations that are equal but for the way in which they are served."""
    groups: dict[object, list[_Member]] = {}
    for data in compared.cells.values():
        trial = data.scored[0].trial if data.scored else None
        if trial is None:
            continue
        settings = {
            name: str(value)
            for name, value in data.scored[0].other_settings.items()
            if not name.startswith(MAY_DIFFER)
        }
        cell = data.cell
        alike = cell.method, cell.targets, cell.dials, tuple(sorted(settings.items()))
        member = _member(data, trial.settings.get("train"))
        groups.setdefault(alike, []).extend(member)
    return list(groups.values())


def _member(data: CellData, training: object) -> list[_Member]:
    """The configuration as a way; none of what was trained for another grid than it is stored on,
    or for one and is kept apart."""
    cell, settings = data.cell, training if isinstance(training, dict) else {}
    grid = settings.get("qat"), settings.get("qat_group_size")
    served = data.scored[0].evaluation.served
    if served is None:
        return [_Member(cell.quant, Way.apart, data)] if grid[0] is None else []
    stored = served.settings.get("quant.storage"), served.settings.get("quant.group_size")
    if grid[0] is not None and grid != stored:
        return []
    return [_Member(cell.serve, Way.afterwards if grid[0] is None else Way.through, data)]


def _held(
    group: list[_Member], reference_quant: str
) -> Iterator[tuple[_Member, tuple[Pair | None, ...]]]:
    """Each member of a mode with several, and what it is held against."""
    known = {(one.mode, one.way, one.data.cell.quant): one.data for one in group}
    reference = known.get((reference_quant, Way.apart, reference_quant))
    for mode in dict.fromkeys(one.mode for one in group):
        members = [one for one in group if one.mode == mode]
        afterwards = known.get((mode, Way.afterwards, reference_quant))
        apart = known.get((mode, Way.apart, mode))
        for member in members if len(members) > 1 else ():
            others = reference, afterwards, apart if member.way is Way.through else None
            if member.data is reference:
                # What is merged afterwards is held against it, not it against that.
                others = None, None, None
            yield member, tuple(_pair(member.data, other) for other in others)


def _pair(subject: CellData, reference: CellData | None) -> Pair | None:
    if reference is None or reference.cell == subject.cell:
        return None
    return Pair(Pairing.ways, subject, reference)
