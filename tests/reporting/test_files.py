"""The written reports: deterministic, whole for studies of any state, sentences that follow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.comparing.findings import compare
from lorascope.records import Status, Study
from lorascope.reporting.catalogue import (
    CATALOGUE,
    FILES,
    make_all,
    report_files,
    shown_blocks,
    write_reports,
)
from lorascope.reporting.entries import TableEntry
from lorascope.reporting.figures.by_memory import draw_by_memory
from lorascope.reporting.figures.by_rank import draw_by_rank
from lorascope.reporting.figures.curves import curves
from lorascope.reporting.figures.style import style
from lorascope.reporting.metrics import losses_csv, metrics_json
from lorascope.reporting.pages.answer_text import answer_text
from lorascope.reporting.pages.html import html_page
from lorascope.reporting.pages.markdown import markdown_page
from lorascope.reporting.pages.page import document
from lorascope.reporting.pages.recommendation import answer
from lorascope.reporting.pages.summary import terminal_summary
from tests.study_factory import Trial, data_card, example_study, make_study, provenance, trial_name


def failed_study() -> Study:
    """Nothing came out of it."""
    return make_study([Trial("nf4", 8, status=Status.killed, reason="signal 9")], 0.1)


def empty_study() -> Study:
    """Nothing was trained or evaluated yet."""
    return make_study([], missing=["nf4-r0008-a0016-s0-0123456789"])


def seeds_study() -> Study:
    """Two alphas and three seeds."""
    trials = [
        Trial("nf4", rank, alpha, seed, accuracy=0.8 + rank / 1000 + seed / 100)
        for rank in (1, 8) for alpha in (16.0, 32.0) for seed in (0, 1, 2)
    ]  # fmt: skip
    return make_study(trials)


def loss_study() -> Study:
    """No right or wrong."""
    return make_study([Trial("nf4", rank, accuracy=None) for rank in (1, 8)], None)


def files(study: Study) -> dict[str, bytes]:
    return report_files(study, compare(study))


def written(study: Study, folder: Path) -> list[Path]:
    return write_reports(study, compare(study), folder)


STUDIES = [example_study, failed_study, empty_study, seeds_study, loss_study]


@pytest.mark.parametrize("build", STUDIES)
def test_write_reports_writes_every_file_for_a_study_in_any_state(
    build: Callable[[], Study], tmp_path: Path
) -> None:
    paths = written(build(), tmp_path)
    assert {path.name for path in paths} == FILES == {path.name for path in tmp_path.iterdir()}
    for figure in tmp_path.glob("*.svg"):
        ET.fromstring(figure.read_bytes())
    for link in re.findall(r"\]\(([^)]+)\)", (tmp_path / "report.md").read_text()):
        # Folders of trials lie beside reports/ in a project.
        assert link.startswith("../experiments/train/") or (tmp_path / link).is_file()


def test_page_shows_what_the_catalogue_has_for_each_section() -> None:
    study, findings = example_study(), compare(example_study())
    page = document(study, findings, shown_blocks(study, findings, make_all(study, findings)))
    sections = {section.anchor for section in page.sections}
    unused = {"by-method-section", "ways-section", "groups"}
    assert {entry.section for entry in CATALOGUE} - sections == unused
    shown = re.findall(r'<div class="table" id="([\w-]+)"', html_page(page))
    # Pairs have a table each kind; nothing is predicted in this study, and nothing settled; all is
    # of one method, and served apart; rows have neither classes nor pairs, and no second dataset;
    # no speed was measured.
    tables = [entry.name for entry in CATALOGUE if isinstance(entry, TableEntry)]
    left = (
        "pairs", "predicted", "looks", "methods", "paper", "ways", "ways-by-loss", "served",
        "classes", "preferences", "forgetting", "groups", "token-prices",
    )  # fmt: skip
    whole = [name for name in tables if name not in left]
    assert [name for name in shown if not name.startswith("pairs-")] == whole


def test_write_reports_twice_leaves_unchanged_files_alone(tmp_path: Path) -> None:
    study = example_study()
    before = {path: path.stat().st_ino for path in written(study, tmp_path)}
    changed = replace(study, data=replace(study.data, warnings=["20 % of rows were dropped"]))
    after = {path: path.stat().st_ino for path in written(changed, tmp_path)}
    assert [path.name for path in before if before[path] != after[path]] == [
        "report.md", "report.html",
    ]  # fmt: skip


def test_reports_have_the_same_bytes_in_another_process_with_another_hash_seed(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.study_factory import example_study;"
        "from lorascope.comparing.findings import compare; study = example_study();"
        "from lorascope.reporting.catalogue import write_reports;"
        "write_reports(study, compare(study), Path(sys.argv[1]))"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True,
        env={"PYTHONPATH": f"{root / 'src'}:{root}", "PYTHONHASHSEED": "7", "LC_ALL": "C"},
    )  # fmt: skip
    here = files(example_study())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == here


def test_reports_do_not_depend_on_the_order_of_trials() -> None:
    study = seeds_study()
    turned = replace(study, trials=study.trials[::-1], evaluations=study.evaluations[::-1])
    assert files(turned) == files(study)


def test_figures_are_text_without_a_date_and_small() -> None:
    for name, content in files(example_study()).items():
        if name.endswith(".svg"):
            assert b"<text" in content
            assert b"<dc:date>" not in content
            assert len(content) < 80_000


def test_rank_figure_has_rank_ticks_modes_and_a_cross_for_the_diverged_trial() -> None:
    study = example_study()
    with style():
        figure = draw_by_rank(compare(study))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["fp16", "int8", "nf4", "nf4_dq", "bare base", "no score"]
    axes = figure.axes[0]
    assert axes.get_ylabel() == "Test accuracy, %"
    assert list(axes.get_xticks()) == [1, 4, 16, 64, 128]


def test_figures_fall_back_to_loss_where_nothing_can_be_right_or_wrong() -> None:
    study = loss_study()
    with style():
        for draw in (draw_by_rank, draw_by_memory):
            axes = draw(compare(study)).axes[0]
            assert axes.get_ylabel() == "Test loss, nats a completion token"


def test_curves_take_the_mean_over_seeds_and_one_curve_an_alpha() -> None:
    study = seeds_study()
    drawn = curves(compare(study))
    assert [(curve.key.quant, curve.key.dial("alpha")) for curve in drawn] == [
        ("nf4", 16.0),
        ("nf4", 32.0),
    ]
    point = drawn[0].points[0]
    assert point.mean == pytest.approx(81.1)
    assert point.seeds == pytest.approx((80.1, 81.1, 82.1))
    assert point.low < point.mean < point.high


def markdown(study: Study) -> str:
    findings = compare(study)
    return markdown_page(
        document(study, findings, shown_blocks(study, findings, make_all(study, findings)))
    )


def metrics(study: Study) -> dict[str, Any]:
    decision = compare(study).decision
    found: dict[str, Any] = json.loads(metrics_json(study, decision))
    return found


def summary(study: Study, folder: Path = Path("reports")) -> str:
    return terminal_summary(study, compare(study), folder)


@pytest.mark.parametrize("build", STUDIES)
def test_page_has_its_sections_in_order_for_a_study_in_any_state(
    build: Callable[[], Study],
) -> None:
    heads = re.findall(r"^## (.*)$", markdown(build()), re.MULTILINE)
    assert [head.split(" against")[0] for head in heads] == [
        "Recommendation", *[heads[1].split(" against")[0]] * 2, "Trainable parameters",
        "Memory and speed", "Pairwise verdicts", "Configurations", "What this study can show",
        "Loss curves", "Failed, refused, missing or not scored", "Merged model",
        "Threats to validity", "How to read this", "Provenance",
    ]  # fmt: skip


def test_page_names_the_merged_trial_and_a_failed_verification() -> None:
    trial = Trial("nf4", 8)
    study = make_study([trial], merged=trial)
    assert study.merge is not None
    assert "Verification: passed" in markdown(study)
    broken = replace(study, merge=replace(study.merge, passed=False, prediction_agreement=0.5))
    text = markdown(broken)
    assert "Verification: **did not pass**" in text
    assert "Equal next-token predictions: 50.00 %" in text
    assert trial_name(trial) in text


def test_page_lists_failures_with_reasons_and_data_warnings() -> None:
    study = replace(failed_study(), data=replace(data_card(), warnings=["answers repeat"]))
    text = markdown(study)
    assert "signal 9" in text
    assert "Trials: 1 killed" in text
    assert "Data warning: answers repeat" in text


def test_page_warns_where_records_were_made_with_different_versions() -> None:
    study = make_study([Trial("nf4", 1), Trial("nf4", 2)])
    other = replace(provenance(), versions={**provenance().versions, "peft": "0.20.0"})
    mixed = replace(study, trials=[study.trials[0], replace(study.trials[1], provenance=other)])
    assert "Not the same" not in markdown(study)
    text = markdown(mixed)
    assert "Not the same in all records: versions of peft." in text
    assert "peft 0.21.2 and 0.20.0" in text


def test_page_has_the_lock_as_the_last_record_saw_it() -> None:
    study = make_study([Trial("nf4", 1)])
    later = replace(provenance(), dvc_lock_sha256="f" * 64, created_utc="2026-11-22T00:00:00+00:00")
    moved = replace(study, trials=[replace(study.trials[0], provenance=later)])
    assert f"sha256 {'f' * 12}, the last of 2 states" in markdown(moved)


def test_metrics_hold_the_test_score_of_the_trial_that_is_best_on_validation() -> None:
    trials = [Trial("nf4", 1, accuracy=0.7), Trial("nf4", 8, accuracy=0.9, loss_nats=0.2)]
    study = make_study(trials, 0.25, merged=trials[1])
    found = metrics(study)
    assert found["nf4"]["best_rank"] == 8
    assert found["nf4"]["best_accuracy"] == 0.9
    assert found["nf4"]["base_accuracy"] == 0.25
    assert found["merge"]["passed"] is True
    assert found["decision"]["recommended_quant"] == "nf4"


def test_metrics_leave_out_what_is_not_finite() -> None:
    study = make_study([Trial("nf4", 1)], base_loss_nats=float("inf"))
    assert "base_loss_nats" not in metrics(study)["nf4"]


def test_losses_have_a_line_a_logged_point() -> None:
    study = make_study([Trial("nf4", 4), Trial("nf4", 8, status=Status.diverged, reason="nan")])
    lines = losses_csv(study).splitlines()
    assert (
        lines[0] == "trial,quant,method,targets,rank,alpha,rslora,dora,seed,variant,step,loss_nats"
    )
    result = study.trials[0].result
    assert result is not None
    assert len(lines) == 1 + len(result.losses)


@pytest.mark.parametrize("build", STUDIES)
def test_terminal_summary_fits_100_columns(build: Callable[[], Study]) -> None:
    text = summary(build())
    assert max(map(len, text.splitlines())) <= 100
    assert text.endswith("Report: reports/report.html\n")


@pytest.mark.parametrize("build", STUDIES)
def test_the_last_stage_ends_with_the_answer(build: Callable[[], Study]) -> None:
    findings = compare(build())
    told, found = answer_text(findings), answer(findings)
    first, *terms = told.replace("\n  ", " ").splitlines()
    assert first == f"{found.headline}: {found.state}."
    assert [line.split(": ")[0] for line in terms] == [term for term, _ in found.in_short]
    assert max(map(len, told.splitlines())) <= 100


def test_terminal_summary_shows_a_path_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = summary(example_study(), tmp_path / "reports")
    assert "Report: reports/report.html" in text
    assert "nf4_dq-r0128-a0016-s0-0123456789: missing, no record" in text


def test_terminal_summary_drops_columns_rather_than_wrap() -> None:
    mode = "a_mode_with_a_name_that_is_rather_long"
    study = make_study([Trial("nf4", 8)])
    renamed = replace(study.trials[0], key=replace(study.trials[0].key, quant=mode))
    text = summary(replace(study, trials=[renamed]))
    assert max(map(len, text.splitlines())) <= 100
    assert mode in text
