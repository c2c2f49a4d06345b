"""`python -m benchmarks.settle [SWEEPS]`: simulated sweeps of known truths, a table a world.

Each sweep is settled, and decided by the fixed design over the whole grid: the same tests at all
seeds, corrected by Holm. Wrong: what ships is truly worse than the reference by the margin or more.
"""

from __future__ import annotations

import statistics
import sys
from itertools import combinations

from benchmarks.settle.worlds import RULE, Truth, World, is_wrong, settled
from lorascope.comparing.cells import Compared
from lorascope.comparing.course import Course
from lorascope.comparing.estimates import seed_components
from lorascope.comparing.evidence import Evidence, Panel
from lorascope.comparing.pairs import SIGNIFICANT
from lorascope.comparing.reference import FAR_MARGINS
from lorascope.comparing.results import CellKey
from lorascope.comparing.seed_spread import seed_spreads
from lorascope.statistics.families import holm_hopeful


def rank(cell: CellKey) -> int:
    """Of a cell of these worlds."""
    return int(dict(cell.dials)["rank"])


def lost(points: float, *cells: tuple[str, int]) -> Truth:
    """These lose so many points, or all but the reference where none are named."""

    def truth(cell: CellKey) -> float:
        place = (cell.quant, rank(cell))
        loses = place in cells if cells else place != ("fp16", 16)
        return -points / 100 if loses else 0.0

    return truth


TRUTHS: dict[str, Truth] = {
    "cheapest fine": lambda cell: 0.0,
    "two cheapest bad": lost(15, ("nf4", 4), ("nf4", 8)),
    "cheapest at the margin": lost(5, ("nf4", 4)),
    "all at the margin": lost(5),
    "none fine": lost(12),
    "none fine, nearer": lost(8),
    "mode effect": lambda cell: -0.08 if cell.quant == "nf4" else 0.0,
    "rank effect": lambda cell: -0.08 if rank(cell) == 4 else 0.0,
}
WORLDS = {
    "seeds spread by 1 point": World(),
    "by 1.8 points, 1 of them shared by modes": World(own=0.015, by_rank=0.01),
    "by 1 point, heavy tails": World(heavy=True),
    "by 1 point, items in clusters of 5": World(together=5, items=2000),
    "three seeds": World(seeds=3),
    "two candidates": World(modes=("fp16", "int8", "nf4"), ranks=(16,)),
}


FEW = ("cheapest fine", "none fine", "mode effect")
"""Truths of a world of one rank."""
HEADER = """\
| Truth | Wrong | Wrong, full grid | Same answer | Something cheaper undecided | Trials | Fewer |
| --- | --: | --: | --: | --: | --: | --: |"""


def fixed_design(compared: Compared, panel: Panel) -> CellKey:
    """The cheapest within the margin by all seeds of the whole grid, else the reference."""
    course = Course(Evidence(compared, panel), None)
    reference = next(iter(course.ranked_references()), None)
    assert reference is not None
    order, measure, rule = course.candidates(reference), compared.measure, compared.study.decide
    seeds = len(compared.cells[reference].declared)
    raw = {cell: course.evidence.difference(cell, reference, seeds) for cell in order}
    shown = [
        (one, other, parts)
        for one, other in combinations([*order, reference], 2)
        if (joined := course.evidence.joined(one, other, seeds))
        and (parts := seed_components(joined, measure))
    ]
    harms = {c: -measure.sign * t.difference.value for c, t in raw.items() if t}
    far = [cell for cell, harm in harms.items() if harm > FAR_MARGINS * compared.margin]
    spreads = seed_spreads(shown, far, rule, measure, compared.margin)
    tests = [spreads.of(test, cell, reference) for cell, test in raw.items() if test]
    within = holm_hopeful([test.p_margin for test in tests])
    passed = (c for c, p in zip(order, within, strict=True) if p is not None and p < SIGNIFICANT)
    return next(passed, reference)


def row(world: World, truth: Truth, sweeps: int) -> str:
    """Shares over `sweeps` sweeps of one truth."""
    compared, margin = world.declared(RULE), RULE.margin_accuracy
    wrong = same = undecided = fixed_wrong = 0
    used = []
    for panel in world.panels(compared, truth, sweeps, 1):
        settling, fixed = settled(compared, panel), fixed_design(compared, panel)
        assert settling.reference is not None
        wrong += is_wrong(settling, truth, margin)
        same += settling.accepted == fixed
        undecided += bool(settling.undecided)
        fixed_wrong += truth(settling.reference) - truth(fixed) >= margin - 1e-9
        used.append(len(settling.used))
    declared = sum(len(data.declared) for data in compared.cells.values())
    shares = [f"{100 * count / sweeps:.1f} %" for count in (wrong, fixed_wrong, same, undecided)]
    trials = statistics.mean(used)
    return " | ".join([*shares, f"{trials:.1f} of {declared}", f"{declared / trials:.1f} x"])


def main(sweeps: int) -> None:
    """Print the tables."""
    for name, world in WORLDS.items():
        print(f"\n{name}\n\n{HEADER}")
        for truth_name, truth in TRUTHS.items():
            if len(world.ranks) > 1 or truth_name in FEW:
                print(f"| {truth_name} | {row(world, truth, sweeps)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
