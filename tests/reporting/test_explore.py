"""The page of all configurations and trials: axes are the tables' numbers, and brushing chooses."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from lorascope.comparing.findings import compare
from lorascope.records import Study
from lorascope.reporting.pages.explore import explore_page
from tests.browser import CHROMIUM, Browser, browser
from tests.study_factory import Trial, example_study, make_study


def seeds_study() -> Study:
    """2 modes x 4 ranks x 3 seeds; nf4's rank 16 is as good as fp16's 4."""
    trials = [
        Trial(quant, rank, accuracy=round(top - 0.4 * math.exp(-rank / 3) + 0.01 * seed, 3),
              seed=seed)
        for quant, top in (("fp16", 0.96), ("nf4", 0.92))
        for rank in (1, 4, 16, 64)
        for seed in (0, 1, 2)
    ]  # fmt: skip
    return make_study(trials, items=200)


def views(study: Study) -> dict[str, dict[str, list[Any]]]:
    """Noun -> header of an axis -> its values, row by row."""
    text = explore_page(study, compare(study))
    told = re.findall(r'data-noun="(\w+)".*?class="axes">(.*?)</script>', text, re.DOTALL)
    return {
        noun: {axis["header"]: axis["values"] for axis in json.loads(content)["axes"]}
        for noun, content in told
    }


def test_axes_hold_every_configuration_and_trial_in_the_units_of_their_headers() -> None:
    study = seeds_study()
    found = views(study)
    assert list(found) == ["configurations", "trials"]
    trials = found["trials"]
    rows = set(zip(trials["Mode"], trials["Rank"], trials["Seed"], strict=True))
    assert rows == {(t.key.quant, t.key.dials["rank"], t.key.seed) for t in study.trials}
    by_row = dict(zip(zip(trials["Mode"], trials["Rank"], trials["Seed"], strict=True),
                      trials["Accuracy %"], strict=True))  # fmt: skip
    scores = {e.trial_identity: e.splits["test"].accuracy for e in study.evaluations}
    for trial in study.trials:
        score = scores[trial.identity]
        assert score is not None
        key = trial.key.quant, trial.key.dials["rank"], trial.key.seed
        assert by_row[key] == pytest.approx(100 * score)
    cells = {(s.cell.quant, s.cell.dial("rank")): s for s in compare(study).cells}
    seen = found["configurations"]
    assert len(seen["Mode"]) == 8
    for quant, rank, score in zip(seen["Mode"], seen["Rank"], seen["Accuracy %"], strict=True):
        estimate = cells[quant, int(rank)].accuracy
        assert estimate is not None
        assert score == pytest.approx(100 * estimate.value, rel=1e-5)


def test_a_study_of_one_trial_and_one_without_scores_have_a_page() -> None:
    assert views(make_study([Trial("nf4")]))["configurations"]["Rank"] == [8]
    assert views(make_study([Trial("nf4", evaluated=False)]))["configurations"]["Mode"] == ["nf4"]


def test_settings_are_told_as_they_are_and_measures_are_ranges() -> None:
    study = make_study(
        [
            Trial("nf4", rank, seed=seed)
            for rank in (512, 1024, 1025)
            for seed in (20240101, 20240102)
        ]
    )
    text = explore_page(study, compare(study))
    told = re.findall(r'class="axes">(.*?)</script>', text, re.DOTALL)
    axes = {axis["header"]: axis for axis in json.loads(told[1])["axes"]}
    assert axes["Rank"]["choices"] == [512, 1024, 1025]
    assert axes["Seed"]["choices"] == [20240101, 20240102]
    configurations = {axis["header"]: axis for axis in json.loads(told[0])["axes"]}
    assert not any(
        axis["choices"] for header, axis in configurations.items() if header.startswith("Train")
    )


def test_what_ships_and_what_it_is_held_against_are_marked() -> None:
    cells = [("fp16", 16, 0.9), ("fp16", 4, 0.5), ("nf4", 16, 0.9)]
    trials = [Trial(q, rank, accuracy=share, seed=s) for q, rank, share in cells for s in (0, 1, 2)]
    study = make_study(trials, {"fp16": 0.1, "nf4": 0.1}, items=400, validation_items=400)
    decision = compare(study).decision
    assert decision.recommended is not None
    assert decision.reference is not None
    assert decision.recommended != decision.reference
    text = explore_page(study, compare(study))
    for content in re.findall(r'class="axes">(.*?)</script>', text, re.DOTALL):
        told = json.loads(content)
        rows = {axis["header"]: axis["values"] for axis in told["axes"]}
        for cell, what in ((decision.recommended, "ships"), (decision.reference, "reference")):
            marked = [int(row) for row, said in told["marked"].items() if said == what]
            found = {(rows["Mode"][row], rows["Rank"][row]) for row in marked}
            assert found == {(cell.quant, cell.dial("rank"))}
            assert len(marked) == (3 if "Seed" in rows and what == "reference" else 1)


needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    study, folder = example_study(), tmp_path_factory.mktemp("explore")
    (folder / "explore.html").write_text(explore_page(study, compare(study)), encoding="utf-8")
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        found.resize(1280, 900)
        found.open(folder / "explore.html")
        yield found


def cells(page: Browser, at: int) -> list[str]:
    """What the table shows in a column."""
    found: list[str] = page.evaluate(
        f"[...document.querySelectorAll('tbody tr')].map((row) => row.cells[{at}].textContent)"
    )
    return found


def field(header: str) -> str:
    return (
        "[...document.querySelectorAll('fieldset')].find((own) => "
        f"own.querySelector('legend').textContent === '{header}')"
    )


class TestInABrowser:
    """One page, used step by step."""

    pytestmark = needs_browser

    def test_fields_choose_and_let_go(self, page: Browser) -> None:
        page.evaluate(f"{field('Rank')}.querySelectorAll('input')[0].focus()")
        page.press(" ", " ")
        page.evaluate(f"{field('Accuracy %')}.querySelector('input').focus()")
        page.type("96.8")
        page.press("Enter", "\r")
        shown = list(zip(cells(page, 0), cells(page, 1), strict=True))
        assert sorted(shown) == [("fp16", "16"), ("fp16", "64"), ("int8", "64")]
        said = page.evaluate("document.querySelector('.chosen').textContent")
        assert said.startswith("3 of 17 configurations chosen; the best validated: Mode fp16")
        page.evaluate("document.querySelector('.ranges button').click()")
        assert len(cells(page, 0)) == 17

    def test_dragging_along_an_axis_chooses_what_lies_there(self, page: Browser) -> None:
        x, top = page.evaluate(
            "(() => { const head = [...document.querySelectorAll('text.head')].find((own) => "
            "own.textContent === 'Mode').getBoundingClientRect(); return [head.left + "
            "head.width / 2, document.querySelector('.parallel').getBoundingClientRect().top]; })()"
        )
        for kind, y, buttons in (("mousePressed", 30, 1), ("mouseMoved", 80, 1),
                                 ("mouseMoved", 160, 1), ("mouseReleased", 160, 0)):  # fmt: skip
            page.send("Input.dispatchMouseEvent", type=kind, x=x, y=top + y, button="left",
                      buttons=buttons, clickCount=1)  # fmt: skip
        # From above the axis to its middle: the upper two of four modes.
        assert set(cells(page, 0)) == {"nf4", "nf4_dq"}
        boxes = f"[...{field('Mode')}.querySelectorAll('input')].map((own) => own.checked)"
        assert page.evaluate(boxes) == [False, False, True, True]
        assert len(page.requests) <= 2
        assert page.complaints == []

    def test_axe_finds_no_fault(self, page: Browser) -> None:
        page.evaluate(f"{(files('axe_core_python') / 'axe.min.js').read_text()}; 1")
        found = page.evaluate("axe.run().then((told) => told.violations.map((own) => own.id))")
        assert found == []

    def test_before_anything_is_trained_it_says_so(self, page: Browser, tmp_path: Path) -> None:
        study = make_study([], items=10)
        (tmp_path / "empty.html").write_text(explore_page(study, compare(study)), encoding="utf-8")
        page.open(tmp_path / "empty.html")
        said = page.evaluate("document.querySelector('.chosen').textContent")
        assert said == "No configuration has a value yet."
        assert page.complaints == []

    def test_ranks_above_a_thousand_are_said_in_full(self, page: Browser, tmp_path: Path) -> None:
        study = make_study([Trial("nf4", 1024), Trial("nf4", 1025, accuracy=0.5)])
        (tmp_path / "high.html").write_text(explore_page(study, compare(study)), encoding="utf-8")
        page.open(tmp_path / "high.html")
        labels = page.evaluate(
            f"[...{field('Rank')}.querySelectorAll('label')].map((own) => own.textContent)"
        )
        assert labels == ["1024", "1025"]
