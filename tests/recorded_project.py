"""A project that holds the records of four trials, their scores and two bases, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from lorascope.adapters.kinds import rank_of
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.files.store import sha256_of_file, write_record
from lorascope.records import EvaluationRecord, ItemResult, TrialRecord
from lorascope.scoring.items import summarize, write_items
from lorascope.study.declared import base_name, declare_trial, evaluation_identity
from lorascope.study.grid import expand
from lorascope.study.params import declared_overrides
from tests.conftest import NO_EXAMPLES, REPOSITORY
from tests.study_factory import (
    Trial,
    base_record,
    data_card,
    digest,
    footprint,
    provenance,
    trial_record,
)

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
serve: apart
search: grid
ship: auto
"""
ITEMS = 60
MODES = ("fp16", "nf4")


def make_recorded(root: Path) -> Layout:
    """Ranks 2 and 8 of two modes, all completed and scored: of ten items 7, 8, 9 and 10 right."""
    layout = Layout(root)
    layout.root.mkdir()
    shutil.copytree(REPOSITORY / "conf", layout.conf)
    (layout.conf / "evaluate/default.yaml").write_text(NO_EXAMPLES)
    layout.params.write_text(PARAMS)
    write_record(layout.base("tiny"), base_record())
    write_record(layout.data("tiny", "biographies"), data_card())
    for quant in MODES:
        write_record(layout.quantized("tiny", quant), footprint(quant))
    for place, config in enumerate(expand(layout, declared_overrides(layout))):
        trial = write_trial(layout, config, Trial(config.quant.name, rank_of(config.adapter)))
        identity = evaluation_identity(config, layout, trial)
        write_scores(layout, config.quant.name, trial.trial, identity, trial, 7 + place)
        base_identity = evaluation_identity(config, layout, None)
        base = base_name(config, layout)
        write_scores(layout, config.quant.name, base, base_identity, None, 2)
    return layout


def write_trial(layout: Layout, config: Config, trial: Trial) -> TrialRecord:
    """The record of the trial that `config` declares, with the results of `trial`."""
    declared = declare_trial(config, layout)
    record = replace(
        trial_record(trial), trial=declared.name, identity=declared.identity, key=declared.key,
        settings=declared.settings,
    )  # fmt: skip
    write_record(layout.trials(config.quant.name) / declared.name, record)
    return record


def write_scores(
    layout: Layout, quant: str, name: str, identity: str, trial: TrialRecord | None, right: int
) -> None:
    """Whether an item is right: of every ten the first `right` are."""
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
