"""Rows of the base's own domain: prepared beside the data, and scored before training and after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM

from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError, RecordError
from lorascope.execution import sweep
from lorascope.files.layout import FORGETTING, SPLITS, Layout
from lorascope.records import EvaluationRecord
from lorascope.scoring.evaluation import LoadedBase
from lorascope.stages import evaluate, prepare_data
from lorascope.study.collect import collect
from lorascope.study.declared import declare_trial, evaluation_identity
from lorascope.study.grid import expand
from tests.conftest import BASE_OVERRIDES, run_command

OTHER = """\
name: other
kind: local
format: text
train: data/raw/other.jsonl
max_tokens: 32
"""
GRID = (*BASE_OVERRIDES, "quant=fp16", "lora.rank=4", "lora.alpha=8")
ASKED = "evaluate.forgetting=other"


@pytest.fixture(scope="module")
def layout(project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project with a second dataset; the first is prepared without it."""
    layout = Layout(tmp_path_factory.mktemp("forgetting") / "a project")
    shutil.copytree(project.root, layout.root)
    shutil.rmtree(layout.root / "experiments", ignore_errors=True)
    (layout.root / "conf/data/other.yaml").write_text(OTHER)
    rows = [{"text": f"the color {n} has thing {n}"} for n in range(40)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (layout.root / "data/raw/other.jsonl").write_text(lines)
    LoadedBase.key = None
    return layout


def points(layout: Layout, *overrides: str) -> list[Config]:
    return expand(layout, [*GRID, *overrides])


def test_trials_are_scored_on_them_and_keep_their_identity(layout: Layout) -> None:
    plain, asked = points(layout), points(layout, ASKED)
    with pytest.raises(RecordError, match=r"prepare-data .* evaluate.forgetting=other"):
        evaluation_identity(asked[0], layout, None)
    before = declare_trial(plain[0], layout).identity
    prepare_data.command(asked, layout)
    assert declare_trial(asked[0], layout).identity == before
    sweep.run_sweep(asked, layout)
    (record,) = evaluate.command(asked, layout)
    assert record is not None
    base = next(e for e in collect(asked, layout).evaluations if e.key is None)
    folder = layout.quantized("small", "fp16")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert forgetting_loss(base) == pytest.approx(own_loss(model, layout, folder), abs=1e-5)
    adapted = PeftModel.from_pretrained(model, declare_trial(asked[0], layout).folder / "adapter")
    assert forgetting_loss(record) == pytest.approx(own_loss(adapted, layout, folder), abs=1e-5)
    assert forgetting_loss(record) != pytest.approx(forgetting_loss(base), abs=1e-3)
    # Without the second dataset scores are other ones, as they always were.
    assert evaluation_identity(plain[0], layout, None) != base.identity
    assert run_command(layout, "report", *GRID, ASKED) == 0
    assert "Forgotten" in (layout.reports / "report.md").read_text()
    assert "forgetting" in (layout.reports / "report.html").read_text()


def forgetting_loss(record: EvaluationRecord) -> float:
    return record.splits[FORGETTING].completion_loss_nats


@torch.no_grad()
def own_loss(model: torch.nn.Module, layout: Layout, stored: Path) -> float:
    """Nats a token, the first and end-of-text included, row by row and without padding. This
    tokenizer has no start token: end-of-text stands before the first."""
    tokenizer, total, tokens = load_tokenizer(stored), 0.0, 0
    kept = layout.data("small", "toy") / FORGETTING
    rows = [row for split in SPLITS for row in read_rows(kept / f"{split}.jsonl")]
    assert len(rows) == 40
    for row in rows:
        ids = torch.tensor([[2, *tokenizer(row.text)["input_ids"]]])
        logits = model(input_ids=ids).logits[0, :-1].float()
        total += float(functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    return total / tokens


def test_a_changed_or_missing_dataset_is_named(layout: Layout) -> None:
    with pytest.raises(ConfigError, match=r"evaluate.forgetting='nothing': .* There are: .*toy"):
        points(layout, "evaluate.forgetting=nothing")
    (layout.root / "conf/data/other.yaml").write_text(OTHER.replace("32", "16"))
    (changed,) = points(layout, ASKED)
    with pytest.raises(RecordError, match=r"other.yaml has another max_tokens"):
        evaluation_identity(changed, layout, None)
