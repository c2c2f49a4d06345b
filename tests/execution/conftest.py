"""What tests of engines have in common."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lorascope.files.layout import Layout


@pytest.fixture
def shared(project: Layout, tmp_path: Path) -> Layout:
    """The prepared project, in a copy without trials."""
    skipped = shutil.ignore_patterns("experiments", ".lorascope")
    shutil.copytree(project.root, tmp_path / "a project", ignore=skipped)
    return Layout(tmp_path / "a project")
