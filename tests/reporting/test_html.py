"""The HTML page as text: self-contained, escaped, with words for its figures."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lorascope.comparing.findings import compare
from lorascope.records import Example, Status, Study
from lorascope.reporting.catalogue import report_files
from tests.study_factory import Trial, example_study, make_study

LARGEST_PAGE_BYTES = 600_000
BESIDE = re.compile(r"(data:,|\.\./experiments/train/[\w.-]+/[\w.-]+/|\w+\.(csv|html))$")
"""Addresses that a page may name: an empty icon, a trial's folder, a table, the other page."""
VOID = {"meta", "link", "br", "input", "col"}


class Page(HTMLParser):
    """Elements with their attributes, ids and whether all that opened closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, name: str) -> list[str]:
        return [value for _, a in self.elements if (value := a.get(name)) is not None]


def written(study: Study) -> str:
    return report_files(study, compare(study))["report.html"].decode()


@pytest.fixture(scope="module")
def text() -> str:
    return written(example_study())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_page_is_small_well_formed_and_without_double_ids(text: str, page: Page) -> None:
    assert len(text.encode()) < LARGEST_PAGE_BYTES
    assert page.open == []
    double = [name for name, times in Counter(page.values("id")).items() if times > 1]
    assert double == []


def test_page_refers_to_nothing_but_itself_and_files_beside_it(text: str, page: Page) -> None:
    known = set(page.values("id"))
    for address in page.values("href") + page.values("xlink:href") + page.values("src"):
        if address.startswith("#"):
            assert address[1:] in known
        else:
            assert BESIDE.match(address), address
    without_script = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    for used in re.findall(r"url\((.*?)\)", without_script):
        assert used.startswith("#")
        assert used[1:] in known
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}
    assert "@import" not in text


def test_each_figure_is_an_image_with_a_title_and_a_description(text: str, page: Page) -> None:
    drawn = page.of("svg")
    assert all(one.get("role") == "img" or one.get("aria-hidden") == "true" for one in drawn)
    figures = [one for one in drawn if one.get("role") == "img"]
    assert len(figures) == 3
    for figure in figures:
        names = (figure["aria-labelledby"] or "").split()
        assert len(names) == 2
        assert set(names) <= set(page.values("id"))
    assert "fp16: rank 1 " in text


def test_figures_take_their_colours_from_the_page(text: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert re.findall(r"#[0-9a-fA-F]{6}\b", drawn) == []
    used = set(re.findall(r"var\(--(\w+)\)", drawn))
    declared = set(re.findall(r"--(\w+):", text))
    assert {"ink", "axis", "mode0", "mode3"} <= used <= declared


def test_each_row_links_to_its_trial_folder_and_names_its_run() -> None:
    study = example_study()
    named = [replace(trial, tracking_run=f"run{place}") for place, trial in enumerate(study.trials)]
    study = replace(study, trials=named)
    files = report_files(study, compare(study))
    text, markdown = (files[name].decode() for name in ("report.html", "report.md"))
    for trial in named:
        folder = f"../experiments/train/{trial.key.quant}/{trial.trial}/"
        assert f'<a href="{folder}">{trial.trial}</a>' in text
        assert f">{trial.tracking_run}</td>" in text
        assert re.search(rf"\| \[{trial.trial}\]\({folder}\) +\| {trial.tracking_run} ", markdown)
    missing = next(iter(study.missing))
    assert missing in text
    assert f"{missing}/" not in text + markdown
    linked = set(re.findall(r"\]\((\w+\.csv)\)", markdown))
    assert {"cells.csv", "accuracy.csv", "comparisons.csv"} <= linked <= set(files)


def test_reasons_from_records_cannot_become_markup() -> None:
    reason = '<script>alert("1")</script> & <b>'
    study = make_study([Trial("nf4"), Trial("nf4", 64, status=Status.killed, reason=reason)])
    text = written(study)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; &lt;b&gt;" in text
    assert Page(text).open == []


def test_unknown_is_blank_and_failures_keep_their_rows(text: str) -> None:
    row = re.search(r"<tr[^>]*><td>nf4</td><td[^>]*>64</td>.*?diverged.*?</tr>", text)
    assert row is not None
    assert '<td class="n"></td>' in row.group()
    assert "loss is nan at step 120" in text


def test_table_cells_carry_what_they_sort_by(text: str) -> None:
    # 1.41 MB sorts above 931 kB, and −2.0 below +1.0.
    assert re.search(r'data-v="1\.\d+e\+06">1\.\d+ MB</td>', text)
    assert re.search(r'data-v="-0\.\d+">−\d', text)


def test_page_prefers_no_scheme_and_prints(text: str) -> None:
    for part in ("prefers-color-scheme: dark", "@media print", 'name="viewport"', "default-src"):
        assert part in text
    assert "sticky" not in text
    # No ornament: four make the shadows at the edges of what scrolls sideways.
    assert text.count("gradient") == 4


def test_names_and_reasons_do_not_act_as_markdown_or_html() -> None:
    reason = "<img src=x onerror=alert(1)> | [press](http://x.example) `rm`"
    study = make_study([Trial("nf4", 4), Trial("nf4", 8, status=Status.failed, reason=reason)])
    files = {n: data.decode() for n, data in report_files(study, compare(study)).items()}
    for name in ("report.html", "report.md"):
        assert "<img" not in files[name], name
        assert "[press](" not in files[name] or name == "report.html"
    table = [line for line in files["report.md"].splitlines() if re.match(r"\|.*onerror", line)]
    assert table
    assert "\\|" in table[0]
    rows = csv.DictReader(io.StringIO(files["accuracy.csv"]))
    assert reason in [row["reason"] for row in rows]


def test_an_answer_is_shown_as_text_with_its_differences_marked() -> None:
    study = make_study([Trial("nf4")])
    base, trial = (e.identity for e in study.evaluations)
    evil = "<script>alert(1)</script> | ![x](http://x.example)\0 the end"
    example = Example("i", "<b>Who?</b>", "me & you", "the start the end", 4, True)
    told = replace(example, text=evil, ended=False, tokens=9)
    study = replace(study, examples={base: [example], trial: [told]})
    files = {n: data.decode() for n, data in report_files(study, compare(study)).items()}
    page = files["report.html"]
    assert Page(page).open == []
    for text in files.values():
        assert "<script>alert" not in text
        assert "\0" not in text
    assert "<summary>&lt;b&gt;Who?&lt;/b&gt;</summary>" in page
    shown = re.findall(r'<p class="said">(.*?)</p>', page, re.DOTALL)
    assert shown[0] == "<del>the start </del>the end"
    assert shown[1].startswith("<ins>&lt;script&gt;")
    assert shown[1].endswith("</ins>the end")
    assert "cut after 9 tokens" in page
    assert '<details class="asked">' in page
    (line,) = (line for line in files["report.md"].splitlines() if "x.example" in line)
    assert "](" not in line
    assert line.count("|") - line.count("\\|") == 4
