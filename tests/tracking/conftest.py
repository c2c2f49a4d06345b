"""One store for all tests of tracking, as making one takes seconds; each test has its own model."""

from __future__ import annotations

import pytest

from lorascope.files.layout import Layout


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """In a folder whose name has a space."""
    return Layout(tmp_path_factory.mktemp("a project") / "with space, 100% & #1")


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
