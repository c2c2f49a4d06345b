"""The HTML page in a browser: nothing asked for, nothing complained of, tables sort and filter."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from lorascope.comparing.findings import compare
from lorascope.reporting.catalogue import write_reports
from tests.browser import CHROMIUM, Browser, browser
from tests.study_factory import Trial, example_study, make_study

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]

TABLE = "document.querySelector('#cells')"
COLUMN = """[...{table}.querySelectorAll('tbody tr:not([hidden])')]
  .map((row) => row.cells[{at}].textContent)"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = example_study()
    folder = tmp_path_factory.mktemp("reports")
    write_reports(study, compare(study), folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def opened(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        found.resize(1280, 900)
        found.open(report)
        yield found


@pytest.fixture
def page(opened: Browser, report: Path) -> Browser:
    """As it is after loading, on a desktop in the light."""
    opened.prefer("light")
    opened.resize(1280, 900)
    opened.open(report)
    unfold(opened)
    return opened


def unfold(page: Browser) -> None:
    """Open the section of the table of configurations."""
    page.evaluate(f"{TABLE}.closest('details').open = true")


def column(page: Browser, header: str) -> list[str]:
    """Visible cells of the table of configurations under `header`."""
    at = page.evaluate(
        f"[...{TABLE}.querySelectorAll('th')].findIndex((h) => h.textContent === '{header}')"
    )
    assert at >= 0
    cells: list[str] = page.evaluate(COLUMN.format(table=TABLE, at=at))
    return cells


def click(page: Browser, header: str) -> str:
    """Click a header; what its column then says of its order."""
    return str(
        page.evaluate(
            f"(() => {{ const head = [...{TABLE}.querySelectorAll('th')]"
            f".find((h) => h.textContent === '{header}'); head.querySelector('button').click();"
            "return head.getAttribute('aria-sort'); })()"
        )
    )


def test_page_asks_for_nothing_else_and_complains_of_nothing(page: Browser, report: Path) -> None:
    assert set(page.requests) <= {report.as_uri(), "data:,"}
    assert page.complaints == []


def test_headers_sort_by_size_and_keep_the_unknown_last(page: Browser) -> None:
    assert click(page, "Accuracy %") == "ascending"
    cells = column(page, "Accuracy %")
    known = [float(cell) for cell in cells if cell]
    assert known == sorted(known)
    assert cells[-2:] == ["", ""]
    assert click(page, "Accuracy %") == "descending"
    cells = column(page, "Accuracy %")
    assert [float(cell) for cell in cells if cell] == known[::-1]
    assert cells[-2:] == ["", ""]


def test_sizes_sort_by_bytes_and_not_by_their_words(page: Browser) -> None:
    click(page, "Serving")
    scale = {"kB": 1e3, "MB": 1e6}
    sizes = [float(c.split()[0]) * scale[c.split()[1]] for c in column(page, "Serving") if c]
    assert sizes == sorted(sizes)


def test_headers_sort_by_keyboard(page: Browser) -> None:
    page.evaluate(f"{TABLE}.querySelector('th:nth-child(2) button').focus()")
    page.press("Enter", "\r")
    assert page.evaluate(f"{TABLE}.querySelector('th:nth-child(2)').getAttribute('aria-sort')") == (
        "ascending"
    )
    assert [cell for cell in column(page, "Rank") if cell][:4] == ["1"] * 4


def test_filter_hides_rows_without_all_its_words(page: Browser) -> None:
    page.evaluate(f"{TABLE}.querySelector('input').focus()")
    page.type("NF4_DQ complete")
    modes = column(page, "Mode")
    assert modes == ["nf4_dq"] * 4
    assert page.evaluate(f"{TABLE}.querySelector('output').textContent") == "4 of 21"


@pytest.fixture
def long_page(opened: Browser, tmp_path: Path) -> Browser:
    """Of 80 configurations, the best ones last."""
    trials = [
        Trial(quant, rank, float(alpha), accuracy=0.4 + 0.1 * place + 0.001 * rank)
        for quant in ("nf4", "fp16")
        for place, rank in enumerate((1, 2, 4, 8, 16))
        for alpha in range(8, 16)
    ]
    study = make_study(trials, items=60, validation_items=60)
    write_reports(study, compare(study), tmp_path)
    opened.resize(1280, 900)
    opened.open(tmp_path / "report.html")
    unfold(opened)
    return opened


def test_a_long_table_shows_the_rows_that_matter_and_all_when_asked(long_page: Browser) -> None:
    first = column(long_page, "Accuracy %")
    assert len(first) == 20
    ranks = column(long_page, "Rank")
    assert set(ranks) <= {"8", "16"}
    click(long_page, "Accuracy %")
    lowest = column(long_page, "Accuracy %")
    assert len(lowest) == 20
    assert float(lowest[-1]) < min(float(cell) for cell in first)
    more = f"{TABLE}.querySelector('p.rest button')"
    assert long_page.evaluate(f"{more}.textContent") == "Show all 82"
    long_page.evaluate(f"{more}.click()")
    every = [float(cell) for cell in column(long_page, "Accuracy %")]
    assert every == sorted(every)
    assert len(every) == 82
    long_page.evaluate(f"{TABLE}.querySelector('input').focus()")
    long_page.type("fp16 complete")
    assert len(column(long_page, "Mode")) == 40


def test_few_rows_after_all_are_those_that_matter_again(long_page: Browser) -> None:
    """Rank 16 stands last in the table, and validates best."""
    first = long_page.evaluate(f"{TABLE}.querySelector('tbody').innerText")
    more = f"{TABLE}.querySelector('p.rest button')"
    for words in ("Show 20", "Show all 82"):
        long_page.evaluate(f"{more}.click()")
        assert long_page.evaluate(f"{more}.textContent") == words
    assert long_page.evaluate(f"{TABLE}.querySelector('tbody').innerText") == first
    told = f"{TABLE}.querySelector('p.rest span').textContent"
    assert long_page.evaluate(told) == "20 of 82 rows, those that matter most."
    long_page.evaluate(f"{TABLE}.querySelector('input').focus()")
    long_page.type("nf4")
    assert column(long_page, "Rank").count("16") == 8


def test_a_folded_section_opens_for_its_link_and_for_print(long_page: Browser) -> None:
    details = "document.querySelector('#provenance').closest('details').open"
    assert long_page.evaluate(details) is False
    pdf = len(long_page.printed())
    assert long_page.evaluate(details) is False
    long_page.evaluate("document.querySelector('nav a[href=\"#provenance\"]').click()")
    assert long_page.evaluate(details) is True
    assert long_page.evaluate("document.documentElement.scrollWidth") == 1280
    assert pdf > 100_000
    assert long_page.complaints == []


def test_page_and_figures_follow_light_and_dark(page: Browser) -> None:
    colors = (
        "[getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('figure svg text')).fill]"
    )
    light = page.evaluate(colors)
    page.prefer("dark")
    dark = page.evaluate(colors)
    assert light[0] == "rgb(255, 255, 255)"
    assert sum(channels(light[1])) < 150
    assert sum(channels(dark[0])) < 150
    assert sum(channels(dark[1])) > 600


def test_axe_finds_no_fault_for_those_who_see_hear_or_type_otherwise(page: Browser) -> None:
    """axe-core's rules of WCAG: names of fields and figures, order of headings, contrast."""
    page.evaluate("document.querySelectorAll('details').forEach((own) => (own.open = true))")
    page.evaluate(f"{(files('axe_core_python') / 'axe.min.js').read_text()}; 1")
    faults, passed = axe(page, "{}")
    assert faults == []
    assert passed > 20
    page.prefer("dark")
    assert axe(page, "{ runOnly: ['color-contrast'] }") == ([], 1)


def axe(page: Browser, options: str) -> tuple[list[str], int]:
    """Faults, with an element of each, and the number of rules that are kept."""
    found = page.evaluate(
        f"axe.run({options}).then((told) => [told.violations.map("
        "(own) => `${own.id}: ${own.nodes[0].html}`), told.passes.length])"
    )
    return found[0], found[1]


def channels(color: str) -> list[int]:
    """Of 'rgb(1, 2, 3)'."""
    return [int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")]


@pytest.mark.parametrize("width", [390, 320])
def test_page_does_not_scroll_sideways_on_a_phone(page: Browser, width: int) -> None:
    page.resize(width, 844, phone=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{wide}.length") > 3
    # Shadows at the edges stay, and what covers them at the ends moves with the content.
    style = "getComputedStyle(document.querySelector('figure .scroll')).backgroundAttachment"
    assert page.evaluate(style) == "local, local, scroll, scroll"
    paper = "getComputedStyle(document.querySelector('[id$=\"axes_1\"] > [id*=patch] path')).fill"
    assert page.evaluate(paper) == "none"


def test_no_table_is_cut_on_a_desktop(page: Browser) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((own) => (own.open = true))")
    cut = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{cut}.map((e) => e.getAttribute('aria-labelledby'))") == []
    said = "document.querySelector('#running p.rest').textContent"
    assert page.evaluate(said) == "In all rows: Alpha 16, Seed 0."


def test_printed_page_has_whole_tables(page: Browser) -> None:
    pdf = page.printed()
    assert pdf.startswith(b"%PDF")
    page.send("Emulation.setEmulatedMedia", media="print")
    page.resize(700, 1000)
    cut = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{cut}.map((e) => e.getAttribute('aria-labelledby'))") == []
    page.send("Emulation.setEmulatedMedia", media="")
