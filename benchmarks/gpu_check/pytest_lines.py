"""A plugin of pytest that tells each test's outcome as a line of results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.gpu_check.lines import FILE, Lines

KEPT_CHARACTERS = 2000
"""Of a failure's text: its end says what was compared."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called with each part of a test: its own call tells, and a setup that did not pass."""
    if report.when != "call" and report.passed:
        return
    told = "" if report.passed else report.longreprtext[-KEPT_CHARACTERS:]
    Lines(Path(os.environ[FILE])).add(
        "tests", "test", name=report.nodeid, outcome=report.outcome, part=report.when,
        seconds=round(report.duration, 2), failure=told,
    )  # fmt: skip
