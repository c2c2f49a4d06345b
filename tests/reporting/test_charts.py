"""What the points of figures say, and where the page believes that they are."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import numpy as np
import pytest

from lorascope.comparing.findings import compare
from lorascope.comparing.ruling import Findings
from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.catalogue import report_files
from lorascope.reporting.figures.by_memory import draw_by_memory
from lorascope.reporting.figures.by_rank import draw_by_rank
from lorascope.reporting.figures.chart import picture
from lorascope.reporting.figures.curves import bases, drawn_curves, ends_of
from lorascope.reporting.figures.losses import draw_losses, readable
from lorascope.reporting.figures.picture import Picture
from lorascope.reporting.figures.style import style
from lorascope.reporting.pages.score_sections import rank_words
from lorascope.reporting.tables.cells import cell_table
from tests.study_factory import Trial, example_study, make_study


@pytest.fixture(scope="module")
def study() -> Study:
    return example_study()


@pytest.fixture(scope="module")
def findings(study: Study) -> Findings:
    return compare(study)


@pytest.fixture(scope="module")
def pictures(study: Study, findings: Findings) -> dict[str, Picture]:
    with style():
        return {
            "by-rank": picture(draw_by_rank(findings)),
            "by-memory": picture(draw_by_memory(findings)),
            "by-step": picture(draw_losses(study, findings)),
        }


def drawn_places(svg: str) -> set[tuple[float, float]]:
    """Where matplotlib put markers and the ends of lines."""
    markers = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg)
    lines = re.findall(r"[ML] ([\d.]+) ([\d.]+)", svg)
    return {(round(float(x), 1), round(float(y), 1)) for x, y in markers + lines}


@pytest.mark.parametrize("name", ["by-rank", "by-memory", "by-step"])
def test_marks_lie_where_the_file_draws_them(pictures: dict[str, Picture], name: str) -> None:
    found = pictures[name]
    drawn = drawn_places(found.svg.decode())
    assert len(found.marks) >= 15
    for mark in found.marks:
        near = [(x, y) for x, y in drawn if abs(x - mark.x) < 0.11 and abs(y - mark.y) < 0.11]
        assert near, mark
        left, top, width, height = found.panels[mark.panel].box
        assert left <= mark.x <= left + width
        assert top <= mark.y <= top + height


def test_points_say_what_the_table_of_configurations_says(
    pictures: dict[str, Picture], findings: Findings
) -> None:
    table = cell_table(findings)
    table = table.select("accuracy", "accuracy_interval")
    rows = dict(zip((row.cell for row in table.rows), table.page_rows(), strict=True))
    marks = pictures["by-rank"].marks
    assert len(marks) == 15
    for mark in marks:
        assert mark.cell is not None
        score, interval = (cell.text for cell in rows[mark.cell])
        assert mark.words[1:] == (f"test accuracy {score} %", f"95 % interval {interval}")


def test_a_legend_is_cut_off_and_names_what_it_switches(pictures: dict[str, Picture]) -> None:
    found = pictures["by-rank"]
    switched = {entry.words: entry.series for entry in found.legend}
    assert list(switched) == ["fp16", "int8", "nf4", "nf4_dq", "bare base", "no score"]
    assert switched["no score"] is None
    numbers = [series for series in switched.values() if series is not None]
    assert len(set(numbers)) == 5
    assert {mark.series for mark in found.marks} == set(numbers[:4])
    left, _, width, _ = found.box
    assert all(entry.swatch[0] > left + width - 1 for entry in found.legend)
    places = [entry.swatch[1] for entry in found.legend]
    assert all(b > a for a, b in pairwise(places))


def test_a_base_far_from_all_intervals_is_told_and_squashes_none() -> None:
    trials = [Trial(q, rank, accuracy=None, loss_nats=0.3 + 0.2 / rank) for q in ("fp16", "nf4")
              for rank in (1, 4, 16)]  # fmt: skip
    study = make_study(trials, None, base_loss_nats=8.0, items=200)
    found = compare(study)
    levels, curves = bases(found), drawn_curves(found)
    assert set(levels) == {"fp16", "nf4"}
    with style():
        drawn = picture(draw_by_rank(found))
    low, high = drawn.panels[0].y.low, drawn.panels[0].y.high
    assert all(low < end < high for end in ends_of(curves))
    assert all(level > high for level in levels.values())
    assert [entry.words for entry in drawn.legend][-1] == "bare base, off the axis"
    words = rank_words(study, found)
    assert words is not None
    assert all(f"{level:.4f}" in words[2] for level in levels.values())


def test_the_page_numbers_configurations_alike_in_figures_and_tables(
    study: Study, findings: Findings
) -> None:
    text = report_files(study, findings)["report.html"].decode()
    told = re.findall(r'<script type="application/json" class="marks">(.*?)</script>', text)
    by_rank = json.loads(told[0])["marks"]
    body = text[text.index('id="cells"') :]
    rows = re.findall(r'<tr data-cells="(\d+)"><td>(\w+)</td><td class="n">(\d*)</td>', body)
    names = {int(number): f"{mode}, rank {rank}" for number, mode, rank in rows if rank}
    assert len(by_rank) == 15
    for _, _, _, _, number, (name, *_) in by_rank:
        assert names[number] == name


def test_a_loss_that_is_read_back_off_the_drawing_is_what_the_tables_say() -> None:
    """With six digits of a place 24 of 100,000 differed, each a hair from where rounding turns."""
    losses = np.random.default_rng(0).uniform(0, 12, 20_000)
    edges = np.round(losses[:2_000], 4) + 0.00005
    for loss in map(float, (*losses, *edges, *(edges + 1e-8), *(edges - 1e-8))):
        assert abs(readable(loss) - loss) <= 2.1e-6
        for error in (-1e-6, 1e-6):
            assert units.nats(readable(loss) + error) == units.nats(loss)
