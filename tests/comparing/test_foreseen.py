"""What a settling may still train and take, counted by hand for two modes and two ranks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from benchmarks.settle.worlds import RULE, World
from lorascope.comparing.budget import spent
from lorascope.comparing.cells import Compared, gather
from lorascope.comparing.course import Course
from lorascope.comparing.evidence import Evidence
from lorascope.comparing.foreseen import Foreseen, foreseen
from lorascope.comparing.results import CellKey, Measure
from lorascope.config import DecideConfig, Search
from lorascope.records import Study
from lorascope.reporting.settling_text import plan_text, round_line
from lorascope.study.collect import settle_study
from tests.study_factory import Trial, make_study

CELLS = [(quant, rank) for quant in ("fp16", "nf4") for rank in (4, 8)]
SEEDS = (0, 1, 2)
Place = tuple[str, int, int]


def study_of(
    there: Collection[Place], rank: int | None = 8, price: float | None = None, behind: float = 0.0
) -> Study:
    """Of mode, rank and seed what is `there`; nf4 is so far behind.

    Two trainings of a pack took 20 s together, one alone 14 s: those of seed 0 were packed.
    """
    places = [(quant, rank, seed) for quant, rank in CELLS for seed in SEEDS]
    score = {"fp16": 0.9, "nf4": 0.9 - behind}
    made = [Trial(quant, rank, seed=seed, accuracy=score[quant]) for quant, rank, seed in places]
    whole = make_study(made, 0.1, validation_items=400)
    trials, missing = [], {}
    for place, trial in zip(places, whole.trials, strict=True):
        assert trial.result is not None
        took = (
            {"pack_ranks": [4, 8], "train_seconds": 20.0}
            if place[2] == 0
            else {"train_seconds": 14.0}
        )
        if place in there:
            trials.append(replace(trial, result=replace(trial.result, **took)))
        else:
            missing[trial.trial] = trial.key
    return replace(
        whole,
        trials=trials,
        missing=missing,
        evaluations=[e for e in whole.evaluations if e.name not in missing],
        adapter_parameters={t.trial: 10 * int(t.key.dials["rank"]) for t in whole.trials},
        decide=DecideConfig(reference_rank=rank, price_per_hour=price),
        search=Search.settle,
    )


def ahead(study: Study) -> Foreseen:
    return foreseen(study, settle_study(study))


def sizes(rounds: tuple[tuple[str, ...], ...]) -> list[int]:
    return list(map(len, rounds))


def limited(study: Study) -> Study:
    return replace(study, decide=replace(study.decide, budget_trials=50))


def test_with_a_named_reference() -> None:
    """Candidates are nf4 at ranks 4 and 8, then fp16 at rank 4."""
    found = ahead(study_of(()))
    # Two seeds of the first and of the reference; in advance, two of nf4 at rank 8.
    assert sizes(found.least) == [6]
    # The third of the first with the reference's; that of nf4 at rank 8; then fp16 at rank 4.
    assert sizes(found.most) == [6, 2, 1, 2, 1]
    assert found.trials == (6, 12)
    assert found.pace is None


def test_with_a_budget_nothing_comes_in_advance() -> None:
    found = ahead(limited(study_of(())))
    assert sizes(found.least) == [4]
    assert sizes(found.most) == [4, 2, 2, 1, 2, 1]


def test_before_the_reference_is_chosen() -> None:
    """Of the two that may be it, rank 8 leaves more candidates."""
    found = ahead(study_of((), rank=None))
    # One seed of each; two of both candidates of nf4 and the second of the reference.
    assert sizes(found.least) == [2, 5]
    # Of fp16 at rank 4 a seed is there by then.
    assert sizes(found.most) == [2, 5, 2, 1, 1, 1]
    assert sizes(ahead(limited(study_of((), rank=None))).most) == [2, 3, 2, 2, 1, 1, 1]


FIRST_LOOK = [(quant, rank, seed) for quant, rank in (("nf4", 4), ("fp16", 8)) for seed in (0, 1)]


def test_what_is_dropped_asks_for_no_more() -> None:
    found = ahead(study_of(FIRST_LOOK, behind=0.5))
    # nf4 at rank 8; its third seed comes with the reference's; fp16 at rank 4.
    assert sizes(found.least) == [2]
    assert sizes(found.most) == [2, 2, 2, 1]


def test_nothing_is_ahead_of_an_answer_that_stands() -> None:
    every = [(quant, rank, seed) for quant, rank in CELLS for seed in SEEDS]
    assert ahead(study_of(every)).trials == (0, 0)


def by_rank(cell: CellKey) -> float:
    return {4: -0.5, 8: -0.05, 16: 0.0}[int(dict(cell.dials)["rank"])]


@pytest.mark.parametrize("rank", [16, None])
def test_what_comes_lies_between_the_ends_at_every_round(rank: int | None) -> None:
    world = World(seeds=4)
    whole = world.declared(replace(RULE, reference_rank=rank))
    panel = next(world.panels(whole, by_rank, sweeps=1, draw=3))
    there: set[str] = set()
    states = []
    while True:
        study = replace(
            whole.study,
            trials=[t for t in whole.study.trials if t.trial in there],
            missing={t.trial: t.key for t in whole.study.trials if t.trial not in there},
        )
        now = Compared(study, Measure.accuracy, gather(study, Measure.accuracy), {})
        settling = Course(Evidence(now, panel), panel).run()
        states.append((len(there), *foreseen(study, settling).trials))
        if not settling.wanted:
            break
        there |= {*settling.wanted, *settling.ahead}
    assert len(states) > 4
    for trained, least, most in states:
        assert least <= len(there) - trained <= most
        assert least > 0 or trained == len(there)


def test_time_and_money_are_the_mean_of_what_is_there() -> None:
    """(10 + 14) / 2 = 12 s a trial; at 3,600 an hour each second costs one."""
    study = study_of(FIRST_LOOK, price=3600.0, behind=0.5)
    settling, found = settle_study(study), ahead(study)
    assert found.pace is not None
    assert found.pace.seconds == pytest.approx(12.0)
    assert found.pace.trials == 4
    assert (found.pace.fastest, found.pace.slowest) == (10.0, 14.0)
    line = round_line(settling, spent(study, settling, study.decide), found, study.decide)
    assert line.partition("; ")[2] == (
        "needed so far: 4 trials, 48 s of training, 48 in money; from here 2 to 7 trials, about "
        "24 s to 84 s of training alone, 24 to 84 in money, at 12.0 s a trial: the mean of 4 "
        "that are there (10.0 to 14.0 s, a pack's time shared)"
    )


def test_a_resumed_training_has_lost_its_first_seconds() -> None:
    study = study_of(FIRST_LOOK)
    result = study.trials[0].result
    assert result is not None
    resumed = replace(study.trials[0], result=replace(result, resumed_at_step=50))
    pace = ahead(replace(study, trials=[resumed, *study.trials[1:]])).pace
    assert pace is not None
    assert pace.trials == 3


def test_the_plan_says_what_may_come_and_of_hours_only_what_is_known() -> None:
    study = study_of((), rank=None)
    text = plan_text(study, settle_study(study), ahead(study), (3, 8))
    assert text.splitlines()[3:] == [
        "trials to come: at the least 7 (packs: 3), where the next look at a candidate accepts it; "
        "at the most 12 (packs: 8), where each candidate takes all its seeds",
        "how long that takes is known after the first round",
    ]
    begun = study_of(FIRST_LOOK, behind=0.5)
    begun = replace(begun, decide=replace(begun.decide, budget_trials=9, budget_hours=0.5))
    text = plan_text(begun, settle_study(begun), ahead(begun), (1, 5))
    assert text.splitlines()[3:] == [
        "trials to come, beside 4 that are there: at the least 2 (packs: 1), where the next look "
        "at a candidate accepts it; at the most 7 (packs: 5), where each candidate takes all its "
        "seeds",
        "about 24 s to 84 s of training alone, at 12.0 s a trial: the mean of 4 that are "
        "there (10.0 to 14.0 s, a pack's time shared)",
        "what ends it earlier: budget_trials=9, budget_hours=0.5",
    ]
