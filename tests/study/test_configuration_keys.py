"""Whatever sets two configurations apart, no key of a table, figure or plot forgets it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest

from lorascope.comparing.findings import compare
from lorascope.comparing.results import CellKey, Pairing
from lorascope.records import Study, TrialKey
from lorascope.reporting.catalogue import report_files
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.curves import curves, size_axis
from lorascope.reporting.figures.style import choose_look
from lorascope.study.declared import trial_name
from tests.study_factory import Trial, digest, lora_dials, make_study
from tests.study_factory import trial_name as made_up_name

RATES = (1e-4, 1e-3)
KINDS: dict[str, tuple[Trial, Trial]] = {
    "settings": (Trial("fp16", accuracy=0.7), Trial("fp16", accuracy=0.8)),
    "alpha": (Trial("fp16", alpha=8), Trial("fp16", alpha=16)),
    "rslora": (Trial("fp16"), Trial("fp16", rslora=True)),
    "dora": (Trial("fp16"), Trial("fp16", dora=True)),
    "targets": (Trial("fp16", modules=("q_proj",)), Trial("fp16")),
    "method": (Trial("fp16"), Trial("fp16", method="ia3", dials=())),
    "other dial": (
        Trial("fp16", method="oft", dials=(("blocks", 4),)),
        Trial("fp16", method="oft", dials=(("blocks", 8),)),
    ),
}
"""What sets two trials apart -> both in one mode; a second mode has the same."""
PER_TRIAL = ("accuracy.csv", "memory_by_trial.csv", "memory_predicted.csv", "losses.csv")
PER_CONFIGURATION = ("cells.csv", "frontier.csv", "comparisons.csv")


def two_kinds(kind: str) -> Study:
    """Four trials: two modes x two kinds of adapter, which differ in the learning rate alone where
    `kind` is settings."""
    trials = [replace(one, quant=quant) for quant in ("fp16", "nf4") for one in KINDS[kind]]
    study = make_study(trials)
    if kind != "settings":
        return study
    return with_rates(study, RATES * 2)


def with_rates(study: Study, rates: tuple[float, ...]) -> Study:
    """The same trials, trained at these learning rates."""
    trials = [
        replace(trial, settings={**trial.settings, "train": {"learning_rate": rate}})
        for trial, rate in zip(study.trials, rates, strict=True)
    ]
    return replace(study, trials=trials)


@pytest.mark.parametrize("kind", KINDS)
def test_every_scored_configuration_is_drawn_and_named_apart(kind: str) -> None:
    findings = compare(two_kinds(kind))
    drawn = curves(findings)
    assert sum(len(curve.points) for curve in drawn) == 4
    look = choose_look(drawn, findings)
    assert len(set(look.labels.values())) == len(drawn) == 4
    assert len({(c.key.quant, str(look.lines[c.key]), look.hollow[c.key]) for c in drawn}) == 4


def test_a_setting_beside_rank_and_alpha_reaches_figures_page_and_metrics() -> None:
    study = two_kinds("settings")
    files = {
        name: content.decode() for name, content in report_files(study, compare(study)).items()
    }
    for name in ("accuracy_by_rank.svg", "loss_by_step.svg", "report.md", "report.html"):
        assert all(f"learning_rate={rate}" in files[name] for rate in RATES), name
    assert json.loads(files["metrics.json"])["decision"]["recommended_variant"].startswith("learn")


@pytest.mark.parametrize("kind", KINDS)
def test_no_table_has_two_rows_that_only_the_name_of_the_trial_tells_apart(kind: str) -> None:
    study = two_kinds(kind)
    files = report_files(study, compare(study))
    keys = ("quant", "method", "targets", "rank", "alpha", "rslora", "dora", "blocks", "variant",
            "seed", "step", "cost_name", "pairing", "status")  # fmt: skip
    for name in (*PER_TRIAL, *PER_CONFIGURATION):
        rows = list(csv.DictReader(io.StringIO(files[name].decode())))
        named = [
            k for k in rows[0] if k.removeprefix("subject_").removeprefix("reference_") in keys
        ]
        told = Counter(tuple(row[key] for key in named) for row in rows)
        assert max(told.values()) == 1, (name, told.most_common(1))


def test_the_plot_tells_every_field_and_dial_of_a_configuration_apart() -> None:
    told = {field.name for field in fields(CellKey)} - {"dials", "base"} | {*lora_dials(8)}
    plot = Path(__file__).parents[2] / ".dvc/plots/accuracy_by_rank.json"
    encoding = json.loads(plot.read_text(encoding="utf-8"))["encoding"]
    shown = {one["field"] for one in encoding["detail"]} | {encoding["color"]["field"]}
    assert shown == told - {"rank"} | {"seed"}


def test_five_adapter_kinds_of_one_mode_do_not_look_alike() -> None:
    findings = compare(make_study([Trial("nf4", alpha=2.0**power) for power in range(8)]))
    drawn = curves(findings)
    look = choose_look(drawn, findings)
    assert len({(str(look.lines[c.key]), look.hollow[c.key]) for c in drawn}) == len(drawn) == 8


def test_a_missing_seed_makes_its_own_configuration_incomplete() -> None:
    """It made one of unknown settings, and the one that lacks it could ship."""
    trials = [Trial("fp16", seed=seed, accuracy=a) for a in (0.6, 0.9) for seed in (0, 1)]
    whole = with_rates(make_study(trials), (1e-4, 1e-4, 1e-3, 1e-3))
    lost = whole.trials[3]
    assert lost.trial == made_up_name(trials[3])
    study = replace(
        whole,
        trials=whole.trials[:3],
        missing={lost.trial: lost.key},
        missing_settings={lost.trial: lost.settings},
    )
    adapters = {s.cell.variant: s for s in compare(study).cells if not s.cell.base}
    assert {name: score.complete for name, score in adapters.items()} == {
        "learning_rate=0.0001": True,
        "learning_rate=0.001": False,
    }
    assert [t.status for t in adapters["learning_rate=0.001"].trials] == ["completed", "missing"]


def test_any_setting_in_which_modes_differ_is_a_confound() -> None:
    study = make_study([Trial("fp16"), Trial("nf4")])
    made = [
        {"train": {"weight_decay": 0.0}, "base": digest("fp16"), "quant": {"storage": "float16"}},
        {"train": {"weight_decay": 0.1}, "base": digest("nf4"), "quant": {"storage": "nf4"}},
    ]
    trials = [
        replace(trial, settings={**trial.settings, **settings})
        for trial, settings in zip(study.trials, made, strict=True)
    ]
    found = compare(replace(study, trials=trials)).comparisons
    assert [c.confounds for c in found if c.pairing is Pairing.mode] == [
        ("train.weight_decay 0.1 against 0.0",)
    ]


def test_a_method_without_a_rank_has_a_row_a_name_a_blank_rank_and_a_place_on_the_axis() -> None:
    trials = [Trial("nf4", rank) for rank in (4, 8)]
    study = make_study([*trials, Trial("nf4", method="ia3", dials=(), accuracy=0.95)])
    findings = compare(study)
    names = CellNames.of(findings)
    called = [names.name(score.cell) for score in findings.cells]
    assert called == [
        "nf4, bare base", "nf4, IA3", "nf4, rank 4, LoRA", "nf4, rank 8, LoRA",
    ]  # fmt: skip
    axis = size_axis(score.cell for score in findings.cells)
    assert (axis.label, axis.ticks) == ("LoRA rank", {4.0: "4", 8.0: "8", 16.0: "IA3"})
    files = {name: text.decode() for name, text in report_files(study, findings).items()}
    for name in PER_TRIAL:
        rows = list(csv.DictReader(io.StringIO(files[name])))
        ranks = {(row["method"], row["rank"]) for row in rows if row["method"]}
        assert ranks == {("lora", "4"), ("lora", "8"), ("ia3", "")}, name
    assert ">IA3<" in files["accuracy_by_rank.svg"]
    assert "Which method, rank, alpha and quantization mode" in files["report.md"]


def test_a_dial_that_only_records_tell_of_names_configurations_and_is_a_column() -> None:
    trials = [Trial("nf4", method="boft", dials=(("block_size", size),)) for size in (4, 8)]
    study = make_study(trials)
    findings = compare(study)
    names = CellNames.of(findings)
    assert [names.name(score.cell) for score in findings.cells][1:] == [
        "nf4, boft, block size 4", "nf4, boft, block size 8",
    ]  # fmt: skip
    files = {name: text.decode() for name, text in report_files(study, findings).items()}
    rows = list(csv.DictReader(io.StringIO(files["cells.csv"])))
    assert [row["block_size"] for row in rows] == ["", "4", "8"]
    assert "rank" not in rows[0]
    recommended = json.loads(files["metrics.json"])["decision"]
    assert (recommended["recommended_method"], recommended["recommended_block_size"]) == ("boft", 4)


@pytest.mark.parametrize(
    ("alpha", "part"), [(16.0, "a0016"), (0.5, "a0.5"), (512.0, "a0512"), (1024.0, "a1024")]
)
def test_trial_names_are_readable_and_sort_by_rank(alpha: float, part: str) -> None:
    key = TrialKey("m", "d", "nf4", "lora", "all_linear", lora_dials(16, alpha), 3)
    assert trial_name(key, "1f3c9a2b7d0000") == f"nf4-r0016-{part}-s3-1f3c9a2b7d"
    other = replace(key, method="ia3", dials={})
    assert trial_name(other, "1f3c9a2b7d0000") == "nf4-ia3-s3-1f3c9a2b7d"
