"""README: its numbers come from the committed report, and the files that it names are there."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def test_every_row_of_the_accuracy_table_stands_in_the_report() -> None:
    table = README.split("<!-- accuracy")[1].split("<!-- /accuracy")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    report = _cells((REPOSITORY / "reports/accuracy.md").read_text())
    assert len(rows) >= 8
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert any(_is_part(cells, full) for full in report), row


def _cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _is_part(cells: list[str], full: list[str]) -> bool:
    """Whether `cells` stand in `full` in this order."""
    rest = iter(full)
    return all(cell in rest for cell in cells)


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_no_page_names_a_path_of_one_machine() -> None:
    for path in [REPOSITORY / "README.md", *(REPOSITORY / "reports").glob("*.*")]:
        assert not re.search(r"/(?:home|work|root|Users|tmp)/", path.read_text()), path
