"""Whether adapters learnt anything: where none is shown to beat the bare base, none ships."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorascope.comparing.estimates import compare_with_base
from lorascope.comparing.findings import compare
from lorascope.comparing.item_columns import JoinedItems
from lorascope.comparing.results import Measure
from lorascope.comparing.shipping import NothingShips, choose
from lorascope.config import DecideConfig
from lorascope.data.card import KeptRow, SampleCount, summarise_split
from lorascope.data.rows import PreparedRow, Segment, write_rows
from lorascope.files.layout import Layout
from lorascope.records import Study
from lorascope.reporting.catalogue import report_files
from lorascope.stages import merge
from lorascope.statistics.families import holm
from tests.comparing.simulated_scores import Floats, World
from tests.conftest import compose_one
from tests.study_factory import Trial, make_study

SCORES = {"fp16": (0.21, 0.23), "nf4": (0.19, 0.22)}
"""Of two ranks a mode, on questions of four choices."""


def guesses(seeds: int = 1) -> Study:
    """Adapters that learnt nothing: all about chance, and so is the bare base."""
    trials = [
        Trial(quant, rank, seed=seed, accuracy=accuracy + 0.005 * seed, loss_nats=1.4)
        for quant, accuracies in SCORES.items()
        for rank, accuracy in zip((4, 8), accuracies, strict=True)
        for seed in range(seeds)
    ]
    return make_study(trials, 0.23, choices=4, validation_items=400)


def files_of(study: Study) -> dict[str, str]:
    return {name: data.decode() for name, data in report_files(study, compare(study)).items()}


@pytest.mark.parametrize("seeds", [1, 2])
def test_adapters_that_learnt_nothing_are_not_recommended(seeds: int) -> None:
    study = guesses(seeds)
    decision = compare(study).decision
    assert decision.none_beats_base
    assert (decision.recommended, decision.trial, decision.settled) == (None, None, False)
    assert len(decision.gains) == 4
    # The smaller base does as well: FP16 adapters are held against that.
    assert {gain.base.quant for gain in decision.gains} <= {"fp16", "nf4"}
    files = files_of(study)
    assert "**No adapter is shown to beat the bare base**: nothing to ship." in files["report.md"]
    assert "Ship " not in files["report.md"].partition("## Accuracy")[0]
    assert json.loads(files["metrics.json"])["decision"]["none_beats_base"] is True
    with pytest.raises(NothingShips, match="ships nothing"):
        choose("auto", study)
    named = study.trials[0].trial
    assert choose(named, study)[0].trial == named


def test_chance_stands_in_tables_and_figure_of_choices_alone() -> None:
    files = files_of(guesses())
    assert "| Chance % |" in files["report.md"]
    assert ">chance<" in files["accuracy_by_rank.svg"]
    assert "reach down to chance, 25.0 %" in files["report.md"]
    header, row = files["accuracy.csv"].splitlines()[:2]
    assert dict(zip(header.split(","), row.split(","), strict=True))["chance"] == "0.25"
    other = files_of(make_study([Trial("nf4")]))
    assert not any("chance" in other[name] for name in ("accuracy_by_rank.svg", "accuracy.md"))


def test_an_adapter_within_the_margin_that_learnt_nothing_does_not_ship() -> None:
    """The margin is wider than what training gained: the cheaper one passes it untrained."""
    trials = [Trial("fp16", 8, accuracy=0.66), Trial("nf4", 8, accuracy=0.6)]
    study = make_study(trials, 0.6, items=4000, validation_items=4000)
    wide = replace(study, decide=DecideConfig(margin_accuracy=0.15))
    decision = compare(wide).decision
    shown = {gain.cell.quant: gain.shown for gain in decision.gains}
    assert shown == {"fp16": True, "nf4": False}
    assert decision.recommended is not None
    assert decision.recommended.quant == "fp16"
    assert "not shown to beat the bare base" in files_of(wide)["report.md"]


def test_a_smaller_base_that_does_as_well_makes_an_adapter_needless() -> None:
    bases = {"fp16": 0.4, "nf4": 0.8}
    trials = [Trial("fp16", 8, accuracy=0.8), Trial("nf4", 8, accuracy=0.8)]
    decision = compare(make_study(trials, bases, validation_items=400)).decision
    assert {gain.base.quant for gain in decision.gains} == {"nf4"}
    assert decision.none_beats_base
    # A larger base does not: it may not fit.
    decision = compare(make_study([Trial("nf4", accuracy=0.7)], 0.4)).decision
    assert [gain.base.quant for gain in decision.gains] == ["nf4"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_losses_that_fell_are_shown_and_losses_that_stayed_are_not(seeds: int) -> None:
    def study(nats: float) -> Study:
        trials = [
            Trial(quant, seed=seed, accuracy=None, loss_nats=nats + 0.001 * seed)
            for quant in ("fp16", "nf4")
            for seed in range(seeds)
        ]
        return make_study(trials, None, base_loss_nats=2.0)

    assert compare(study(1.0)).decision.recommended is not None
    assert compare(study(2.0)).decision.none_beats_base


def test_without_a_score_of_the_base_the_answer_says_so() -> None:
    study = make_study([Trial("fp16", 8)])
    bare = replace(study, evaluations=[e for e in study.evaluations if e.trial_identity])
    decision = compare(bare).decision
    assert decision.recommended is not None
    assert decision.gain_is_unknown
    assert not decision.settled
    assert "the bare base has no score" in files_of(bare)["report.md"]


@pytest.mark.parametrize(
    "world", [World(), World(clustered=True, pareto=4), World(seeds=3, seed=0.0)], ids=str
)
def test_sweeps_that_learnt_nothing_rarely_seem_to_have(world: World) -> None:
    """Eight adapters as good as their base: one is called better in 2.5 % of sweeps at most."""
    rng = np.random.default_rng(13)
    wrong = 0
    for right in world.draw(rng, 600, (0.25,) * 9):
        tested = [
            compare_with_base(_joined(np.vstack([one, right[-1][:1]]), world), Measure.accuracy)
            for one in right[:-1]
        ]
        known = [one for one in tested if one is not None]
        adjusted = holm([p for _, p in known])
        wrong += any(
            p is not None and p < 0.05 and estimate.value > 0
            for p, (estimate, _) in zip(adjusted, known, strict=True)
        )
    assert wrong / 600 <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 600)


def _joined(right: Floats, world: World) -> JoinedItems:
    return JoinedItems(right, right, np.ones(right.shape[1]), world.labels)


def test_chance_is_the_mean_over_rows_of_a_guess_among_their_choices(tmp_path: Path) -> None:
    rows = [
        PreparedRow("a", [Segment("x", True)], "x", "y", choices=["1", "2"]),
        PreparedRow("b", [Segment("x", True)], "x", "y", choices=["1", "2", "3", "4"]),
    ]
    path = tmp_path / "test.jsonl"
    write_rows(path, rows)
    sample = SampleCount(tokens=2, trained=1, unknown=0, eos_trained=True)
    card = summarise_split([KeptRow(row, sample) for row in rows], path)
    assert card.chance_accuracy == pytest.approx((1 / 2 + 1 / 4) / 2)
    plain = [KeptRow(replace(row, choices=None), sample) for row in rows]
    assert summarise_split(plain, path).chance_accuracy is None


def test_merge_ends_well_where_nothing_ships_and_leaves_no_older_model(
    study: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose_one(study, "quant=nf4", "lora.rank=4")
    assert (study.merged("small") / "model.safetensors").is_file()
    assert merge.command([config], study) is None
    assert [path.name for path in study.merged("small").iterdir()] == [merge.NOTHING_SHIPPED]
    assert "ship: auto ships nothing" in capsys.readouterr().out
