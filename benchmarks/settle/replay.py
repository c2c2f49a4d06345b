"""`python -m benchmarks.settle.replay [OVERRIDES]`, in the folder of a study all of whose declared
trials are scored: what the full grid ships, what settling would have shipped, and with how many.

One row for the reference that validation chooses, and one for each rank that may be named.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import lorascope
from lorascope.comparing.cells import Compared, gather, study_measure
from lorascope.comparing.decision import decide
from lorascope.comparing.reference import reference_choices
from lorascope.comparing.results import CellKey
from lorascope.config import Search
from lorascope.records import Study
from lorascope.study.collect import collect_all, settle_study

HEADER = """\
| Reference | Full grid ships | Cheaper ones undecided | Settling ships | Undecided | Trials |
| --- | --- | --: | --- | --: | --: |"""


def rows(study: Study) -> Iterator[str]:
    """One for each way to come to a reference."""
    measure = study_measure(study)
    cells = gather(study, measure)
    choices = reference_choices(Compared(study, measure, cells, {}))
    ranks = [None, *sorted({rank for c in choices if isinstance(rank := c.dial("rank"), int)})]
    for rank in ranks:
        named = replace(study, decide=replace(study.decide, reference_rank=rank))
        grid = decide(Compared.of(replace(named, search=Search.grid), measure, cells))
        settling = settle_study(named)
        yield " | ".join([
            f"| {'chosen' if rank is None else 'named'}: {_name(grid.reference)}"
            + (f", settling {_name(settling.reference)}" if rank is None else ""),
            _name(grid.recommended), str(len(grid.open)), _name(settling.accepted),
            str(len(settling.undecided)),
            f"{len(settling.used)} of {sum(len(data.declared) for data in cells.values())} |",
        ])  # fmt: skip


def _name(cell: CellKey | None) -> str:
    return "nothing" if cell is None else f"{cell.quant} {cell.size()}"


def main(overrides: Sequence[str]) -> None:
    """Print the table."""
    layout = lorascope.find_layout(Path())
    declared = lorascope.with_overrides(lorascope.declared_overrides(layout), list(overrides))
    study = collect_all(lorascope.expand(layout, declared), layout)
    print(HEADER)
    for row in rows(study):
        print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
