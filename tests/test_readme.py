"""README and docs/: their numbers come from committed reports, what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lorascope.stages.commands import COMMANDS
from tests.conftest import REPOSITORY
from tests.imports import PACKAGE
from tests.test_layers import ROOMS

README = REPOSITORY / "README.md"
LOG = REPOSITORY / "docs/log.md"
WATCHING = REPOSITORY / "docs/watching.md"
PAGES = [
    README,
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(set((REPOSITORY / "docs").glob("*.md")) - {LOG}),
]
"""All but the log, which speaks of what was there once."""
ROOTS = (REPOSITORY, PACKAGE)
"""What paths in pages begin at; files beside a page are found too."""
PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|md|yaml|csv|json|svg))?)`")
UNWRITTEN = re.compile(
    r"mine|^(?:data|experiments|models|reports/gpu|\.lorascope)/|^reports/report\.html$"
)
"""Paths that a reader or a stage makes."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.mark.parametrize(("name", "fewest"), [("README.md", 8), ("docs/reading-the-report.md", 20)])
def test_every_row_of_the_accuracy_table_stands_in_the_report(name: str, fewest: int) -> None:
    table = (REPOSITORY / name).read_text().split("<!-- accuracy")[1].split("<!-- /accuracy")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    report = _cells((REPOSITORY / "reports/accuracy.md").read_text())
    assert len(rows) >= fewest
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


def test_the_answer_in_readme_is_the_committed_report_s() -> None:
    answer = re.search(r"^> (.+)$", README.read_text(), re.MULTILINE)
    assert answer
    assert answer[1] in (REPOSITORY / "reports/report.md").read_text()


@every_page
def test_linked_files_and_headings_exist(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        assert not heading or heading in _headings(linked), f"{target}#{heading}"


def _headings(page: Path) -> list[str]:
    """As Git hosts name them in links."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_workflow_in_the_docs_names_commands_and_flags_that_there_are() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", WATCHING.read_text(), re.DOTALL)
    jobs = yaml.safe_load(text)["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    named = [line.split() for line in lines if line.startswith("lorascope ")]
    assert {command for _, command, *_ in named} >= {"check", "plan", "status", "report"}
    for _, command, *words in named:
        flags = {word for word in words if word.startswith("--")}
        assert flags <= COMMANDS[command].flags.keys()


@every_page
def test_named_paths_exist(page: Path) -> None:
    for path in PATH.findall(page.read_text()):
        roots = (page.parent, *ROOTS)
        there = any((root / path).exists() for root in roots)
        assert there or UNWRITTEN.search(path) or f"/{path}".endswith("/record.json"), path


@every_page
def test_named_commands_exist(page: Path) -> None:
    for command in re.findall(r"^(?:lorascope|`lorascope) +([a-z][a-z-]+)", page.read_text(), re.M):
        assert command in COMMANDS, command


def test_readme_lists_every_page() -> None:
    listed = README.read_text()
    assert all(f"]({page.relative_to(REPOSITORY)})" in listed for page in PAGES if page != README)


def test_readme_draws_the_rooms_as_they_stand() -> None:
    tree = README.read_text().split("src/lorascope/\n")[1].split("```")[0]
    drawn = re.findall(r"^  (\w+)(?:/|\.py) ", tree, re.MULTILINE)
    assert drawn == list(reversed(ROOMS))


@pytest.mark.parametrize(
    "path", [*PAGES, *(REPOSITORY / "reports").glob("*.*")], ids=lambda path: path.name
)
def test_no_page_names_a_path_of_one_machine(path: Path) -> None:
    assert not re.search(r"/(?:home|work|root|Users|tmp)/", path.read_text()), path


def test_the_picture_of_the_architecture_shows_the_rooms_as_they_stand() -> None:
    picture = (REPOSITORY / "docs/architecture.svg").read_text()
    assert re.findall(r'class="room title mid">(\w+)<', picture) == list(reversed(ROOMS))
