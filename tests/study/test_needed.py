"""search=settle as commands: it trains what the answer needs, goes on where it stood, and what it
did not need stays untrained in every later stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorascope.files.layout import Layout
from tests.command_line import lorascope
from tests.conftest import make_project, save_small_model

SMALL = ("runtime.tracking=false", "train.steps=30")


def said(layout: Layout, *arguments: str) -> str:
    done = lorascope(layout, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A prepared study of four configurations with three seeds each, by loss."""
    layout = make_project(tmp_path_factory.mktemp("settling"))
    save_small_model(layout.root / "models/raw/small")
    text = layout.params.read_text().replace("search: grid", "search: settle")
    layout.params.write_text(text.replace('seed: "0"', 'seed: "0,1,2"'))
    for stage in ("prepare-base", "prepare-data"):
        said(layout, stage)
    for quant in ("fp16", "nf4"):
        said(layout, "quantize-base", f"quant={quant}")
    return layout


@pytest.mark.slow
def test_it_trains_what_the_answer_needs_and_no_stage_asks_for_the_rest(project: Layout) -> None:
    layout = project
    assert "nothing is settled yet" in lorascope(layout, "train-lora", "-m").stderr
    first = said(layout, "settle", *SMALL, "decide.budget_trials=4")
    assert "not settled (budget_trials=4" in first
    # Both ranks of fp16; two seeds of nf4's lower rank, one of the reference. In the end all.
    assert "trials to come: at the least 5 (packs: 3)" in first
    assert "at the most 12 (packs: 9)" in first
    assert "how long that takes is known after the first round" in first
    assert "what ends it earlier: budget_trials=4" in first
    content = json.loads(layout.settled.read_bytes())
    assert content["stopped"]
    assert content["wanted"]
    assert len(content["needed"]) <= 4
    assert len({*content["needed"], *content["wanted"], *content["unneeded"]}) == 12
    left = lorascope(layout, "status", *SMALL)
    assert (left.returncode, "lorascope settle" in left.stdout) == (1, True)
    whole = said(layout, "settle", *SMALL)
    # Without a budget, two seeds of nf4's other rank come in advance.
    assert "trials to come, beside 2 that are there: at the least 5 (packs: 2)" in whole
    assert "s a trial: the mean of 2 that are there" in whole
    again = said(layout, "settle", *SMALL)
    assert "validation loss" in whole
    assert "validation loss" not in again
    assert again.splitlines()[-1] == whole.splitlines()[-1]
    content = json.loads(layout.settled.read_bytes())
    trained = {p.name for q in ("fp16", "nf4") for p in layout.trials(q).iterdir()}
    needed = set(content["needed"])
    assert trained >= needed
    # The rest was trained ahead, in a pack: first seeds of other candidates of a mode.
    assert len(trained - needed) <= 4
    assert not any("-s2" in name for name in trained - needed)
    assert f"{len(needed)} of 12 declared trials" in again
    assert "validation loss" not in said(layout, "train-lora", "-m", *SMALL)
    assert "scored already" in said(layout, "evaluate", "-m", *SMALL)
    other = lorascope(layout, "train-lora", "-m", *SMALL, "lora.rank=6")
    assert "is not of the grid that was settled" in other.stderr
    said(layout, "report", *SMALL)
    page = (layout.reports / "report.md").read_text()
    assert f"{len(needed)} completed, {12 - len(needed)} not needed" in page
    assert "Looks at the candidates" in page


@pytest.mark.slow
def test_what_memory_refuses_ends_it_with_a_reason_and_is_tried_once_more_a_run(
    project: Layout,
) -> None:
    """It was asked for again and again, without an end."""
    tight = (*SMALL, "train.steps=31", "runtime.memory_limit_gb=0.0001")
    for _ in range(2):
        ended = said(project, "settle", *tight)
        assert "nothing ships: there is no reference to hold candidates against" in ended
        assert "refused" in ended.splitlines()[-1]


def test_one_seed_and_costs_that_are_known_later_are_refused(tmp_path: Path) -> None:
    layout = make_project(tmp_path)
    one = lorascope(layout, "settle", "search=settle")
    assert one.returncode == 2
    assert "seed=0: search=settle judges over seeds" in one.stderr.replace("'", "")
    timed = lorascope(layout, "settle", "search=settle", "decide.cost=train_seconds")
    assert "decide.cost=train_seconds" in timed.stderr.replace("'", "")
    assert "Use serving_bytes or adapter_bytes" in timed.stderr


def test_a_study_has_one_search(tmp_path: Path) -> None:
    layout = make_project(tmp_path)
    layout.params.write_text(layout.params.read_text().replace("search: grid", "search: some"))
    assert "params.yaml: search='some'" in lorascope(layout, "settle").stderr
    layout.params.write_text(layout.params.read_text().replace("search: some", "search: grid"))
    swept = lorascope(layout, "settle", "search=grid,settle").stderr
    assert "looks at one search at a time" in swept


def test_a_grid_needs_all(tmp_path: Path) -> None:
    layout = make_project(tmp_path)
    assert "nothing to settle" in said(layout, "settle")
    assert json.loads(layout.settled.read_bytes()) == {"search": "grid"}
