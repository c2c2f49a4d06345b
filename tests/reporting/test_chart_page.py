"""Figures of the page answer to mouse and keys, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorascope.comparing.findings import compare
from lorascope.reporting.catalogue import write_reports
from tests.browser import CHROMIUM, Browser, browser
from tests.study_factory import example_study

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]

FIGURE = "document.querySelector('#by-rank-figure')"
TIP = f"{FIGURE}.querySelector('.tip')"
TOP = """(() => { const box = (e.matches('use') ? e : e.querySelector('use'))
  .getBoundingClientRect(); return box.top + box.height / 2; })()"""
"""Middle of a marker, or of a tick's line."""
LABEL = "document.activeElement.getAttribute('aria-label')"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = example_study()
    folder = tmp_path_factory.mktemp("reports")
    write_reports(study, compare(study), folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        found.resize(1280, 900)
        yield found


@pytest.fixture
def page(opened: Browser, report: Path) -> Browser:
    """As it is after loading, at its first figure."""
    opened.open(report)
    opened.evaluate(f"{FIGURE}.scrollIntoView()")
    return opened


def points(page: Browser) -> list[list[Any]]:
    """Of the first figure: panel, x, y, series, number of the configuration, words."""
    found: list[list[Any]] = page.evaluate(
        f"JSON.parse({FIGURE}.querySelector('script.marks').textContent).marks"
    )
    return found


def mouse(
    page: Browser, kind: str, x: float, y: float, buttons: int = 0, figure: str = FIGURE,
    clicks: int = 1,
) -> None:  # fmt: skip
    """Move or press at a place of a figure, in the coordinates of its SVG."""
    left, top, scale = page.evaluate(
        f"(() => {{ const own = {figure}.querySelector('.over'); const edge = "
        "own.getBoundingClientRect(); return [edge.left, edge.top, edge.width / "
        "own.viewBox.baseVal.width]; })()"
    )
    page.send(
        "Input.dispatchMouseEvent", type=kind, x=left + scale * x, y=top + scale * y,
        button="left", buttons=buttons, clickCount=clicks,
    )  # fmt: skip


def lit(page: Browser) -> set[str]:
    """Numbers of the configurations whose rows stand out."""
    return set(page.evaluate("[...document.querySelectorAll('tr.lit')].map(r => r.dataset.cells)"))


def test_the_point_under_the_mouse_says_its_value_and_lights_its_rows(page: Browser) -> None:
    _, x, y, _, number, words = points(page)[2]
    mouse(page, "mouseMoved", x + 3, y - 2)
    assert page.evaluate(f"[...{TIP}.children].map(e => e.textContent)") == words
    assert words[0] == "fp16, rank 16"
    assert lit(page)
    assert all(str(number) in row.split() for row in lit(page))
    page.press("Escape")
    assert page.evaluate(f"{TIP}.hidden") is True
    assert lit(page) == set()


def test_arrow_keys_lead_along_a_curve_and_to_the_next(page: Browser) -> None:
    page.evaluate(f"{FIGURE}.querySelector('circle.stop').focus()")
    assert page.evaluate(LABEL).startswith("fp16, rank 1, test accuracy")
    for key, name in (("ArrowRight", "fp16, rank 4,"), ("ArrowDown", "int8, rank 4,"),
                      ("End", "int8, rank 64,"), ("ArrowRight", "int8, rank 64,")):  # fmt: skip
        page.press(key)
        assert page.evaluate(LABEL).startswith(name), key
    assert page.evaluate(f"{FIGURE}.querySelectorAll('[role=button][tabindex=\"0\"]').length") == 1
    page.press("Escape")
    assert page.evaluate(f"{TIP}.hidden") is True


def test_a_point_finds_its_row_and_the_row_its_point(page: Browser) -> None:
    page.evaluate(f"{FIGURE}.querySelector('circle.stop').focus()")
    page.press("ArrowRight")
    page.press("Enter", "\r")
    row = "document.activeElement.closest('tr')"
    assert page.evaluate(f"[...{row}.cells].slice(0, 2).map(c => c.textContent)") == ["fp16", "4"]
    page.press("ArrowDown")
    found = page.evaluate(f"[...{row}.cells].slice(0, 2).map(c => c.textContent)")
    page.press("Enter", "\r")
    assert page.evaluate(LABEL).startswith(f"{found[0]}, rank {found[1]},")


def test_the_legend_switches_a_mode_off_and_on(page: Browser) -> None:
    button = f"{FIGURE}.querySelector('.legend button')"
    assert page.evaluate(f"{button}.textContent.trim()") == "fp16"
    page.evaluate(f"{button}.click()")
    assert page.evaluate(f"{button}.getAttribute('aria-pressed')") == "false"
    _, x, y, series, _, _ = points(page)[0]
    shown = f"[...{FIGURE}.querySelectorAll('.plot > svg [data-series=\"{series}\"]')]"
    displays = f"{shown}.map(e => getComputedStyle(e).display)"
    assert set(page.evaluate(displays)) == {"none"}
    mouse(page, "mouseMoved", x, y)
    assert not page.evaluate(f"{TIP}.textContent").startswith("fp16")
    page.evaluate(f"{button}.click()")
    assert page.evaluate(f"{button}.getAttribute('aria-pressed')") == "true"
    assert set(page.evaluate(displays)) == {"inline"}


def test_a_loss_curve_answers_at_each_logged_step(page: Browser) -> None:
    """By mouse and keys; what it says is read off the path, and is what was logged."""
    page.evaluate("location.hash = '#losses'")
    losses = FIGURE.replace("by-rank", "by-step")
    logged = {
        (t.key.quant, t.key.dials["rank"]): [(p.step, p.loss_nats) for p in t.result.losses]
        for t in example_study().trials
        if t.result and t.result.losses
    }
    page.evaluate(f"{losses}.scrollIntoView()")
    page.evaluate(f"{losses}.querySelector('circle.stop').focus()")
    step, loss = logged["fp16", 1][-1]
    said = f"fp16, rank 1, seed 0, training loss {loss:.4f} nats at step {step}"
    assert page.evaluate(LABEL) == said
    page.press("ArrowLeft")
    for key, quant, rank in (("", "fp16", 1), ("ArrowDown", "fp16", 4), ("ArrowUp", "fp16", 1)):
        if key:
            page.press(key)
        step, loss = logged[quant, rank][-2]
        told = f"{quant}, rank {rank}, seed 0, training loss {loss:.4f} nats at step {step}"
        assert page.evaluate(LABEL) == told
    page.press("Home")
    assert page.evaluate(LABEL).endswith(f"{logged['fp16', 1][0][1]:.4f} nats at step 20")
    path = f"{losses}.querySelector('[id^=\"by-step-series\"] path').getAttribute('d')"
    numbers = [float(number) for number in page.evaluate(path).split() if number not in "ML"]
    mouse(page, "mouseMoved", numbers[8] + 2, numbers[9] - 2, figure=losses)
    tip = f"{losses}.querySelector('.tip').innerText"
    step, loss = logged["fp16", 1][4]
    assert page.evaluate(tip).split("\n")[-1] == f"training loss {loss:.4f} nats at step {step}"


def test_dragging_zooms_with_true_numbers_at_the_axis_and_zero_shows_all(page: Browser) -> None:
    fp16 = [mark for mark in points(page) if mark[5][0].startswith("fp16")]
    (_, ax, ay, *_, low), (_, bx, by, *_, high) = fp16[1:3]
    axis = f"[...{FIGURE}.querySelectorAll('[id$=\"axis_2\"] > g:not(.off)')]"
    ticks = f"{axis}.filter(e => e.querySelector('use')).map(e => [Number(e.textContent), {TOP}])"
    before = page.evaluate(ticks)
    mouse(page, "mousePressed", ax - 10, ay + 20, 1)
    mouse(page, "mouseMoved", bx, by, 1)
    mouse(page, "mouseMoved", bx + 20, by - 5, 1)
    mouse(page, "mouseReleased", bx + 20, by - 5)
    curve = f"[...{FIGURE}.querySelectorAll('.plot [data-series=\"0\"] use')]"
    tops = page.evaluate(f"{curve}.map(e => {TOP})")
    scores = [float(words[1].split()[-2]) for words in (low, high)]
    pixels_a_point = (tops[2] - tops[1]) / (scores[1] - scores[0])
    zoomed = page.evaluate(ticks)
    assert len(zoomed) >= 3
    assert not {number for number, _ in zoomed} <= {number for number, _ in before}
    for number, top in zoomed:
        assert abs(tops[1] + pixels_a_point * (number - scores[0]) - top) < 3
    page.evaluate(f"{FIGURE}.querySelector('circle.stop').focus()")
    page.press("0")
    assert page.evaluate(ticks) == before
    page.press("+")
    assert page.evaluate(ticks) != before
    page.press("Escape")
    box = "[...['cx', 'cy'].map(at => Number(document.activeElement.getAttribute(at)))]"
    x, y = page.evaluate(box)
    page.evaluate("document.activeElement.blur()")
    for clicks in (1, 2):
        mouse(page, "mousePressed", x, y, 1, clicks=clicks)
        mouse(page, "mouseReleased", x, y, clicks=clicks)
    assert page.evaluate(f"{FIGURE}.contains(document.activeElement)") is True
    assert page.evaluate(ticks) == before
    assert page.complaints == []
