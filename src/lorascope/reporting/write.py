"""Writes all reports of a study. The same study gives the same bytes, wherever and whenever."""

from __future__ import annotations

from pathlib import Path

from lorascope.comparing.ruling import Findings
from lorascope.files.store import write_all_atomically
from lorascope.records import Study
from lorascope.reporting.catalogue import files_of, make_all
from lorascope.reporting.pages.html import html_page
from lorascope.reporting.pages.markdown import markdown_page
from lorascope.reporting.pages.page import document
from lorascope.reporting.pages.summary import PAGE, REPORT


def write_reports(study: Study, findings: Findings, folder: Path) -> list[Path]:
    """Write every report into `folder`, or none; files that would not change are left alone.

    Returns:
        All reports, changed or not, in a fixed order.
    """
    files = {folder / name: content for name, content in report_files(study, findings).items()}
    changed = {
        path: content
        for path, content in files.items()
        if not path.is_file() or path.read_bytes() != content
    }
    write_all_atomically(changed)
    return list(files)


def report_files(study: Study, findings: Findings) -> dict[str, bytes]:
    """File name -> content."""
    made = make_all(study, findings)
    page = document(study, findings, made)
    pages = {REPORT: markdown_page(page).encode(), PAGE: html_page(page).encode()}
    return {**files_of(study, findings, made), **pages}
