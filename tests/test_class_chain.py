"""A small DeBERTa with a head for classes through all commands, in two modes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lorascope.cli import run_named
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import Layout
from lorascope.files.store import read_record
from lorascope.records import TrialRecord
from lorascope.scoring.items import read_items
from tests.class_bases import CLASSES, class_rows, save_source
from tests.conftest import TEST_DEVICE, run_command
from tests.conftest import make_project as plain_project

pytestmark = pytest.mark.slow

MODEL = "name: small\nkind: local\npath: models/raw/small\nclasses: 2\ndropout: 0\n"
DATA = f"""\
name: toy
kind: local
format: labelled
train: data/raw/toy.csv
validation_fraction: 0.25
test_fraction: 0.25
classes: [{", ".join(CLASSES)}]
max_tokens: 32
scoring: classes
"""
TRAIN = """\
name: few
steps: 12
batch_size: 8
micro_batch_size: 8
learning_rate: 3e-2
objective: classification
"""
ASKED = [
    "model=small", "data=toy", "train=few", "lora=attention", "lora.rank=2,8", "lora.alpha=16",
    "seed=0", "runtime.tracking=false", *([f"runtime.device={TEST_DEVICE}"] if TEST_DEVICE else []),
]  # fmt: skip


def make_project(root: Path) -> Layout:
    """Rows whose class one of their words tells, and a DeBERTa that knows nothing."""
    root.mkdir()
    layout = plain_project(root)
    save_source("deberta", root / "models/raw/small")
    files = {"model/small": MODEL, "data/toy": DATA, "train/few": TRAIN}
    for name, text in files.items():
        (layout.conf / f"{name}.yaml").write_text(text)
    with (root / "data/raw/toy.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label"))
        rows.writerows(
            (f"{row.prompt} film {n}", row.answer) for n, row in enumerate(class_rows(96))
        )
    return layout


def test_deberta_learns_classes_in_two_modes_and_is_merged(tmp_path: Path) -> None:
    layout = make_project(tmp_path / "a project")
    modes = [*ASKED, "quant=fp16,nf4"]
    assert run_command(layout, "check", *modes) == 0
    for name in ("prepare-base", "prepare-data"):
        assert run_command(layout, name, *ASKED[:3]) == 0
    for mode in ("fp16", "nf4"):
        assert run_command(layout, "quantize-base", *ASKED[:3], f"quant={mode}") == 0
    for name in ("train-lora", "evaluate", "report"):
        assert run_command(layout, name, *modes) == 0
    with (layout.reports / "classes.csv").open() as file:
        told = list(csv.DictReader(file))
    # Two bare bases and four trials, both ranks of a mode in one pack.
    assert len(told) == 6
    for row in told:
        if row["rank"]:
            trained = read_record(layout.trials(row["quant"]) / row["trial"], TrialRecord).result
            assert trained is not None
            assert trained.pack_ranks == [2, 8]
    assert max(float(row["macro_f1"]) for row in told if row["rank"]) > 0.8
    page = (layout.reports / "report.md").read_text()
    assert "cross-entropy of an item's class" in page
    assert "completion tokens" not in page
    best = max((row for row in told if row["rank"]), key=lambda row: float(row["macro_f1"]))
    assert run_command(layout, "merge", *modes, f"ship={best['trial']}") == 0
    merged = AutoModelForSequenceClassification.from_pretrained(layout.merged("small")).eval()
    items = read_items(layout.evaluations(best["quant"]) / best["trial"] / "test.jsonl")
    rows = read_rows(layout.data("small", "toy") / "test.jsonl")
    tokenizer = load_tokenizer(layout.merged("small"))
    with torch.no_grad():
        said = [
            int(merged(**tokenizer(row.prompt, return_tensors="pt")).logits.argmax())
            for row in rows
        ]
    assert [item.predicted for item in items] == said
    # Its head comes with the adapter; merged, transformers alone loads it.
    for form in ("adapter", "merged"):
        to = tmp_path / form
        words = [f"to={to}", f"trial={best['trial']}", f"form={form}", *modes]
        assert run_named("export", [], layout, {}, words) == 0
    card = (tmp_path / "adapter/README.md").read_text()
    assert "very logits" in card
    assert "name: Loss, nats a class" in card
    again = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "merged", dtype="float32"
    ).eval()
    texts = tokenizer(rows[0].prompt, return_tensors="pt")
    with torch.no_grad():
        off = again(**texts).logits - merged(**texts).logits
    # Weights of 16 bits, of numbers about 1.
    assert off.abs().max() < 1e-2
