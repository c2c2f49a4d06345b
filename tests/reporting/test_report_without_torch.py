"""`lorascope report` from records alone, where no training library can be imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def package_example(number: int) -> list[str]:
    """The lines of an example in the package's docstring, counted from 0."""
    blocks = str(lorascope.__doc__).split("\n\n")
    examples = [block for block in blocks if block.startswith("    ")]
    return [line.strip() for line in examples[number].splitlines()]


def test_the_packages_own_example_compares_a_study_without_a_training_library(
    recorded: Layout,
) -> None:
    code = [REFUSE, "import lorascope", "from pathlib import Path", *package_example(0)]
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join([*code, "print(findings.decision.recommended.quant)"]),
         ",".join(ABSENT)],
        cwd=recorded.root, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.stdout.strip() == "nf4", ended.stderr


def test_the_packages_own_example_counts_parameters_and_plans_memory(
    recorded: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "vocab_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    (recorded.root / "config.json").write_text(json.dumps(values))
    monkeypatch.chdir(recorded.root)
    found: dict[str, Any] = {"lorascope": lorascope, "Path": Path, "json": json}
    exec("\n".join([*package_example(0), *package_example(1)]), found)
    # q and o 64 -> 64, k and v 64 -> 32, gate and up 64 -> 128, down 128 -> 64; 8 for each side.
    assert found["parameters"] == 2 * 8 * (2 * 128 + 2 * 96 + 3 * 192)
    assert found["plan"].adapter_bytes == 4 * found["parameters"]
    assert found["trial"] == found["study"].trials[0]


@pytest.mark.parametrize("name", ABSENT)
def test_refused_modules_cannot_be_imported(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", f"{REFUSE}\nimport {name}", ",".join(ABSENT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"{name} is refused" in ended.stderr
