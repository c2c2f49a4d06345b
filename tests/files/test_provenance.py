"""Provenance: what git, DVC and the installed packages say, and None where they say nothing."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from lorascope.files.layout import Layout
from lorascope.files.provenance import DECIDE_NOTHING, capture

REPOSITORY = Path(__file__).parents[2]


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Layout:
    git(tmp_path, "init", "-q")
    (tmp_path / "reports").mkdir()
    (tmp_path / "conf/train").mkdir(parents=True)
    for name in ("code.py", "dvc.lock", "reports/table.md", "conf/train/few.yaml"):
        (tmp_path / name).write_text("old\n")
    (tmp_path / ".gitignore").write_text("/models/\n__pycache__\nignored.yaml\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return Layout(tmp_path)


def test_capture_in_a_clean_clone_names_commit_lock_and_caller_facts(repository: Layout) -> None:
    made = capture(repository, device_name="cpu: test", threads=3)
    assert made.git_commit == git(repository.root, "rev-parse", "HEAD")
    assert made.git_dirty is False
    assert made.dvc_lock_sha256 == hashlib.sha256(b"old\n").hexdigest()
    assert (made.device, made.threads) == ("cpu: test", 3)
    age = datetime.now(UTC) - datetime.fromisoformat(made.created_utc)
    assert 0 <= age.total_seconds() < 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made.created_utc)


@pytest.mark.parametrize(
    ("changed", "dirty"),
    [
        ("code.py", True),
        ("conf/train/few.yaml", True),
        ("dvc.lock", False),
        ("reports/table.md", False),
        ("untracked.txt", False),
        ("conf/train/mine.yaml", True),
        ("conf/train/ignored.yaml", True),
        ("src/lorascope/new.py", True),
        ("json.py", True),
        ("params.yaml", True),
        ("src/lorascope/__pycache__/new.pyc", False),
        ("models/some/code.py", False),
        ("tools/module.py", True),
    ],
)
def test_dirty_counts_sources_and_not_what_stages_rewrite(
    repository: Layout, changed: str, dirty: bool
) -> None:
    (repository.root / changed).parent.mkdir(parents=True, exist_ok=True)
    (repository.root / changed).write_text("new\n")
    assert capture(repository, "cpu", 1).git_dirty is dirty


def test_settings_that_an_experiment_rewrites_are_not_dirty_once_they_are_committed(
    repository: Layout,
) -> None:
    """`dvc exp run -S` writes them, and each record has its own."""
    (repository.root / "params.yaml").write_text("seed: 0\n")
    git(repository.root, "add", "params.yaml")
    git(repository.root, "commit", "-qm", "a study")
    (repository.root / "params.yaml").write_text("seed: 1\n")
    assert capture(repository, "cpu", 1).git_dirty is False


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_change_that_git_was_told_to_overlook_is_dirty(repository: Layout, flag: str) -> None:
    git(repository.root, "update-index", flag, "conf/train/few.yaml")
    (repository.root / "conf/train/few.yaml").write_text("new\n")
    assert git(repository.root, "status", "--porcelain") == ""
    assert capture(repository, "cpu", 1).git_dirty is True


@pytest.mark.parametrize("ignored", [False, True])
def test_a_project_that_lies_untracked_in_another_repository_is_in_no_commit(
    repository: Layout, ignored: bool
) -> None:
    inner = Layout(repository.root / "inner")
    (inner.root / "conf").mkdir(parents=True)
    (inner.root / "conf/config.yaml").write_text("seed: 0\n")
    if ignored:
        (repository.root / ".gitignore").write_text("inner\n")
        git(repository.root, "commit", "-qam", "ignore")
    made = capture(inner, "cpu", 1)
    assert (made.git_commit, made.git_dirty) == (None, True)
    git(repository.root, "add", "-f", "inner")
    git(repository.root, "commit", "-qm", "inner")
    made = capture(inner, "cpu", 1)
    assert (made.git_commit, made.git_dirty) == (git(repository.root, "rev-parse", "HEAD"), False)


def test_a_repository_that_the_environment_names_is_not_the_project_s(
    repository: Layout, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    expected = git(repository.root, "rev-parse", "HEAD")
    for name, value in (
        ("GIT_DIR", other / ".git"), ("GIT_WORK_TREE", other), ("GIT_INDEX_FILE", other / "index"),
        ("GIT_PREFIX", "x/"), ("GIT_LITERAL_PATHSPECS", "1"), ("GIT_OBJECT_DIRECTORY", other),
    ):  # fmt: skip
        monkeypatch.setenv(name, str(value))
    made = capture(repository, "cpu", 1)
    assert (made.git_commit, made.git_dirty) == (expected, False)
    (repository.root / "code.py").write_text("new\n")
    assert capture(repository, "cpu", 1).git_dirty is True


def test_a_staged_change_is_dirty_too(repository: Layout) -> None:
    (repository.root / "code.py").write_text("new\n")
    git(repository.root, "add", "code.py")
    assert capture(repository, "cpu", 1).git_dirty is True


def test_without_git_or_dvc_facts_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    made = capture(Layout(tmp_path), "cpu", 1)
    assert (made.git_commit, made.git_dirty, made.dvc_lock_sha256) == (None, None, None)


def test_without_the_git_program_the_commit_is_unknown(
    repository: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert capture(repository, "cpu", 1).git_commit is None


def test_versions_are_those_installed_and_of_packages_that_we_declare(tmp_path: Path) -> None:
    versions = capture(Layout(tmp_path), "cpu", 1).versions
    assert versions["torch"] == version("torch")
    assert versions["mlflow"] == version("mlflow")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    assert set(DECIDE_NOTHING) <= declared
    assert set(versions) == declared - set(DECIDE_NOTHING) | {"lorascope"}


def test_capture_imports_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from lorascope.files.layout import Layout;"
        "from lorascope.files.provenance import capture; capture(Layout(Path('.')), 'cpu', 1);"
        "sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
