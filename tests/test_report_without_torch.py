"""`lorascope report` from records alone, where no training library can be imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.item_results import summarize, write_items
from lorascope.layout import Layout
from lorascope.records import EvaluationRecord, ItemResult, TrialRecord
from lorascope.stages.declared import base_name, declare_trial, evaluation_identity
from lorascope.stages.grid import declared_overrides, expand
from lorascope.store import sha256_of_file, write_record
from tests.conftest import REPOSITORY
from tests.study_factory import (
    Trial,
    base_record,
    data_card,
    digest,
    footprint,
    provenance,
    trial_record,
)

ABSENT = ("torch", "transformers", "peft", "bitsandbytes", "mlflow", "datasets", "lm_eval")
PARAMS = """\
model: tiny
data: biographies
quant: [fp16, nf4]
lora:
  targets: all_linear
  rank: "2,8"
  alpha: "16"
train: tiny
seed: "0"
evaluate: default
merge: default
decide: default
ship: auto
"""
ITEMS = 60
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
    """A project that holds the records of four trials and two bases, and nothing else."""
    layout = Layout(tmp_path_factory.mktemp("recorded") / "a project")
    layout.root.mkdir()
    shutil.copytree(REPOSITORY / "conf", layout.conf)
    layout.params.write_text(PARAMS)
    write_record(layout.base("tiny"), base_record())
    write_record(layout.data("tiny", "biographies"), data_card())
    for quant in ("fp16", "nf4"):
        write_record(layout.quantized("tiny", quant), footprint(quant))
    configs = expand(layout, declared_overrides(layout))
    for place, config in enumerate(configs):
        declared = declare_trial(config, layout)
        quant = config.quant.name
        made = trial_record(Trial(quant, config.lora.rank, seed=config.seed))
        trial = replace(
            made, trial=declared.name, identity=declared.identity, key=declared.key,
            settings=declared.settings,
        )  # fmt: skip
        write_record(layout.trials(quant) / trial.trial, trial)
        identity = evaluation_identity(config, layout, trial)
        write_scores(layout, quant, trial.trial, identity, trial, 7 + place)
        base_identity = evaluation_identity(config, layout, None)
        write_scores(layout, quant, base_name(config, layout), base_identity, None, 2)
    return layout


def write_scores(
    layout: Layout, quant: str, name: str, identity: str, trial: TrialRecord | None, right: int
) -> None:
    """Of every ten items, the first `right` are."""
    folder = layout.evaluations(quant) / name
    folder.mkdir(parents=True, exist_ok=True)
    items = {
        split: [
            ItemResult(
                digest(f"{split}{n}"), digest(f"p{n}"), digest(f"t{n}"), n % 10 < right,
                2.0 - right / 10, 2, digest(f"person {n // 5}"),
            )
            for n in range(ITEMS)
        ]
        for split in ("validation", "test")
    }  # fmt: skip
    for split, scored in items.items():
        write_items(folder / f"{split}.jsonl", scored)
    record = EvaluationRecord(
        name=name, identity=identity, quant=quant,
        trial_identity=trial.identity if trial else None, key=trial.key if trial else None,
        scoring="answer", batch_size=64,
        splits={split: summarize(scored) for split, scored in items.items()},
        lm_eval_metrics={},
        items_sha256={split: sha256_of_file(folder / f"{split}.jsonl") for split in items},
        seconds=1.0, provenance=provenance(),
    )  # fmt: skip
    write_record(folder, record)


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


@pytest.mark.parametrize("name", ABSENT)
def test_refused_modules_cannot_be_imported(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", f"{REFUSE}\nimport {name}", ",".join(ABSENT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"{name} is refused" in ended.stderr
