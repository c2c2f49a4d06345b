"""The figure of looks: each beside the margin, hopeless ones at the edge, all of it in words."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorascope.comparing.findings import compare
from lorascope.comparing.results import Measure
from lorascope.comparing.ruling import Findings
from lorascope.config import DecideConfig, Search
from lorascope.records import Study
from lorascope.reporting.catalogue import make_all, shown_blocks
from lorascope.reporting.figures.by_look import draw_by_look, looks_by_cell
from lorascope.reporting.figures.style import INK, style
from lorascope.reporting.pages.document import FigureBlock
from lorascope.reporting.settling_text import looks_table
from tests.study_factory import Trial, example_study, make_study

MARGIN = 5.0


def settled(accuracies: dict[tuple[str, int], float | None], seeds: int = 4) -> Findings:
    """By mode and rank, the same for every seed; fp16 rank 8 is the reference."""
    trials = [
        Trial(quant, rank, seed=seed, accuracy=accuracy, loss_nats=0.3 + (quant == "nf4") * 0.5)
        for (quant, rank), accuracy in accuracies.items()
        for seed in range(seeds)
    ]
    return compare(searching(make_study(trials, _base(accuracies), validation_items=1000)))


def _base(accuracies: dict[tuple[str, int], float | None]) -> float | None:
    return None if None in accuracies.values() else 0.1


def searching(study: Study) -> Study:
    parameters = {one.trial: 10 * int(one.key.dials["rank"]) for one in study.trials}
    rule = DecideConfig(reference_quant="fp16", reference_rank=8)
    return replace(study, search=Search.settle, decide=rule, adapter_parameters=parameters)


@pytest.fixture(scope="module")
def findings() -> Findings:
    """Far behind, on the margin, and as good."""
    return settled({("nf4", 8): 0.3, ("int8", 8): 0.84, ("fp16", 4): 0.9, ("fp16", 8): 0.9})


def drawn(findings: Findings) -> Figure:
    with style():
        return draw_by_look(findings)


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def rows(axes: Axes, *markers: str) -> dict[float, tuple[float, bool]]:
    """Row -> where it has such a mark, and whether that is filled."""
    points = [(line, np.asarray(line.get_xydata())) for line in axes.lines]
    return {
        float(at[0, 1]): (float(at[0, 0]), line.get_markerfacecolor() == INK)
        for line, at in points
        if line.get_marker() in markers and len(at) == 1
    }


def test_a_row_a_look_with_its_seeds_and_its_end(findings: Findings) -> None:
    settling = findings.decision.settling
    assert settling is not None
    axes = drawn(findings).axes[0]
    by_cell = looks_by_cell(settling)
    assert [(cell.quant, cell.dial("rank")) for cell in by_cell] == [
        ("nf4", 8), ("int8", 8), ("fp16", 4),
    ]  # fmt: skip
    seeds = [str(look.seeds) for taken in by_cell.values() for look in taken]
    shown = [label.get_text().removeprefix("again ") for label in axes.get_yticklabels()]
    assert shown == seeds
    assert words(axes).count("accepted, ships") == 1
    assert {"margin", "reference", "seeds", "fp16, rank 4"} <= set(words(axes))


def test_filled_is_what_has_its_limit_inside_the_margin(findings: Findings) -> None:
    axes = drawn(findings).axes[0]
    limits, marks = rows(axes, "|"), rows(axes, "o", "x", "v", "s")
    filled = {row for row, (_, full) in marks.items() if full}
    assert filled == {row for row, (limit, _) in limits.items() if limit > -MARGIN}
    assert len(filled) == 1
    for row in filled:
        assert limits[row][0] < marks[row][0]


def test_the_table_tells_a_look_that_is_taken_again_and_the_limit_that_decides(
    findings: Findings,
) -> None:
    settling = findings.decision.settling
    assert settling is not None
    again = replace(settling, looks=(*settling.looks, replace(settling.looks[-1])))
    *_, before, last = csv.DictReader(io.StringIO(looks_table(again, Measure.accuracy).csv()))
    assert (before["seeds"], last["seeds"]) == ("3", "again 3")
    assert last["end"] == "accepted"
    assert -0.05 < float(last["limit"]) < float(last["difference"])


def test_a_hopeless_candidate_is_an_arrow_with_its_difference(findings: Findings) -> None:
    axes = drawn(findings).axes[0]
    low, high = axes.get_xlim()
    assert low >= -4 * MARGIN
    assert high <= 3 * MARGIN
    assert "−60.0" in words(axes)
    assert any(full and x == low for x, full in rows(axes, "<").values())


def test_what_is_worse_lies_on_the_right_where_less_is_better() -> None:
    found = settled({("nf4", 8): None, ("fp16", 4): None, ("fp16", 8): None})
    axes = drawn(found).axes[0]
    assert axes.get_xlabel().endswith("nats")
    low, high = axes.get_xlim()
    assert low == pytest.approx(-0.025)
    assert high == pytest.approx(0.2)
    assert "+0.5000" in words(axes)
    ((limit, _),) = [at for row, at in rows(axes, "|").items() if rows(axes, "o")[row][1]]
    assert 0 < limit < 0.05


def figures(study: Study) -> dict[str, FigureBlock]:
    found = compare(study)
    shown = shown_blocks(study, found, make_all(study, found))["by-rank-section"]
    return {block.key: block for block in shown if isinstance(block, FigureBlock)}


def test_the_page_has_it_in_words_where_something_was_looked_at() -> None:
    assert figures(example_study()).keys() == {"by-rank"}
    trials = [Trial(quant, seed=seed) for quant in ("nf4", "fp16") for seed in range(4)]
    figure = figures(searching(make_study(trials, 0.1, validation_items=1000)))["by-look"]
    assert "nf4, rank 8: accepted with" in figure.description
    assert "margin 5.0 points" in figure.description
    limits = re.findall(r"limit \W?(\d+\.\d+)", figure.description)
    # It said 852.7 points: a share was made points twice.
    assert limits
    assert all(float(limit) < 100 for limit in limits)
