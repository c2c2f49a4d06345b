"""`lorascope report` from records alone, where no training library can be imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lorascope
from lorascope.files.layout import Layout
from tests.conftest import REPOSITORY
from tests.recorded_project import make_recorded

ABSENT = ("torch", "transformers", "peft", "bitsandbytes", "mlflow", "datasets", "lm_eval")
REFUSE = """\
import sys
REFUSED = sys.argv[1].split(",")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused")
sys.meta_path.insert(0, Refuse())
"""
"""Makes the modules that the first argument names unimportable. Not by None in sys.modules: scipy
takes what it finds there for torch."""
REPORT = f"""{REFUSE}
sys.argv = ["lorascope", "report"]
from lorascope.cli import main
main()
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Records and nothing else."""
    return make_recorded(tmp_path_factory.mktemp("recorded") / "a project")


def reported(layout: Layout, absent: tuple[str, ...]) -> dict[str, bytes]:
    """What `lorascope report` writes where `absent` cannot be imported."""
    shutil.rmtree(layout.reports, ignore_errors=True)
    ended = subprocess.run(
        [sys.executable, "-c", REPORT, ",".join(absent)], cwd=layout.root, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return {path.name: path.read_bytes() for path in sorted(layout.reports.iterdir())}


def test_report_has_the_same_bytes_where_no_training_library_can_be_imported(
    recorded: Layout,
) -> None:
    bare = reported(recorded, ABSENT)
    assert bare == reported(recorded, ("nothing_of_this_name",))
    page = bare["report.html"].decode()
    assert "Ship nf4" in page
    assert str(recorded.root) not in page
    assert Path.home().as_posix() + "/" not in page


def test_the_packages_own_example_compares_a_study_without_a_training_library(
    recorded: Layout,
) -> None:
    example = [line.strip() for line in str(lorascope.__doc__).splitlines() if line[:4] == "    "]
    assert len(example) == 3
    code = [REFUSE, "import lorascope", "from pathlib import Path", *example]
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join([*code, "print(findings.decision.recommended.quant)"]),
         ",".join(ABSENT)],
        cwd=recorded.root, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.stdout.strip() == "nf4", ended.stderr


@pytest.mark.parametrize("name", ABSENT)
def test_refused_modules_cannot_be_imported(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", f"{REFUSE}\nimport {name}", ",".join(ABSENT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"{name} is refused" in ended.stderr
