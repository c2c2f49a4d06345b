"""In which order a settling asks for trials, when its answer stands, how often it is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.settle.replay import rows
from benchmarks.settle.worlds import RULE, Truth, World, is_wrong, settled
from lorascope.comparing.cells import MISSING, NO_EVALUATION, Compared, gather
from lorascope.comparing.course import Course
from lorascope.comparing.evidence import Evidence, Panel, panel_of
from lorascope.comparing.looks import Looks
from lorascope.comparing.reference import reference_choices
from lorascope.comparing.results import CellKey, Measure, Verdict
from lorascope.records import Study
from lorascope.reporting.settling_text import outcome
from lorascope.study.collect import settle_study
from tests.study_factory import Trial, make_study


def rank(cell: CellKey) -> int:
    return int(dict(cell.dials)["rank"])


def fine(cell: CellKey) -> float:
    return 0.0


def one_at_the_margin(cell: CellKey) -> float:
    return -0.05 if (cell.quant, rank(cell)) == ("nf4", 4) else 0.0


def none_fine(cell: CellKey) -> float:
    return 0.0 if (cell.quant, rank(cell)) == ("fp16", 16) else -0.12


USUAL = World()


def drawn(truth: Truth, draw: int = 3, world: World = USUAL) -> tuple[Compared, Panel]:
    compared = world.declared(RULE)
    return compared, next(world.panels(compared, truth, 1, draw))


def without(compared: Compared, there: set[str]) -> Compared:
    """All but these trials untrained."""
    cells = {}
    for cell, data in compared.cells.items():
        declared = tuple(
            one if one.trial in there else replace(one, status=MISSING, test=None, validation=None)
            for one in data.declared
        )
        scored = tuple(s for s in data.scored if s.trial is None or s.trial.trial in there)
        cells[cell] = replace(data, declared=declared, scored=scored)
    return replace(compared, cells=cells)


def test_candidates_are_the_cheaper_ones_cheapest_first() -> None:
    settling = settled(*drawn(fine))
    names = [(cell.quant, rank(cell)) for cell in settling.order]
    assert names == [(quant, r) for quant in ("nf4", "int8", "fp16") for r in (4, 8, 16)][:-1]
    assert settling.reference is not None
    assert (settling.reference.quant, rank(settling.reference)) == ("fp16", 16)


def test_the_cheapest_that_is_fine_ends_it() -> None:
    settling = settled(*drawn(fine))
    assert settling.accepted == settling.order[0]
    assert {look.cell for look in settling.looks} == {settling.order[0]}
    assert settling.looks[0].seeds == 2
    assert len(settling.used) == 2 * settling.looks[-1].seeds
    assert settling.looks[-1].p_within < settling.looks[-1].level


def test_dropped_ones_are_passed_over_and_the_reference_ships_where_none_is_fine() -> None:
    settling = settled(*drawn(none_fine))
    assert settling.accepted == settling.reference
    for cell in settling.order:
        look = settling.last_look(cell)
        assert look is not None
        assert look.out_of_reach or look.verdict is Verdict.worse
        assert look.difference.value < -0.05
    assert not settling.undecided


@pytest.mark.parametrize("truth", [fine, one_at_the_margin, none_fine])
def test_live_it_takes_the_course_that_a_full_grid_shows(truth: Truth) -> None:
    """It goes on from what is there, one round after the other, as after a kill at any moment."""
    compared, panel = drawn(truth)
    whole = settled(compared, panel)
    there: set[str] = set()
    rounds = 0
    while (now := settled(without(compared, there), panel)).wanted:
        assert not set(now.wanted) & there
        assert now.looks == whole.looks[: len(now.looks)]
        # A kill in the middle of a round leaves a part of it.
        there |= set(now.wanted[: max(1, len(now.wanted) // 2)])
        rounds += 1
    assert now == whole
    assert there == whole.used
    assert rounds > 1


def test_the_next_candidates_of_a_mode_are_trained_in_one_pack() -> None:
    compared, panel = drawn(fine)
    first = settled(without(compared, set()), panel)
    nf4 = [compared.cells[cell].declared for cell in first.order[:3]]
    reference = compared.cells[first.reference].declared if first.reference else ()
    assert first.wanted == tuple(t.trial for t in (*nf4[0][:2], *reference[:2]))
    assert first.ahead == tuple(t.trial for data in nf4[1:] for t in data[:2])
    rule = replace(RULE, ahead=1)
    one = replace(compared, study=replace(compared.study, decide=rule))
    assert settled(without(one, set()), panel).ahead == first.ahead[:2]
    there = {*first.wanted, *first.ahead}
    # What is there already is not trained again, nor is anything ahead of a further seed.
    later = settled(without(compared, there), panel)
    assert later.wanted == (nf4[0][2].trial, reference[2].trial)
    assert later.ahead == ()


def test_nothing_is_trained_in_advance_where_only_scores_are_asked_for() -> None:
    compared, panel = drawn(lambda cell: -0.3 * (cell.quant == "nf4" and rank(cell) == 4))
    order = settled(compared, panel).order
    data = compared.cells[order[1]]
    unscored = tuple(
        replace(one, reason=NO_EVALUATION, test=None, validation=None) for one in data.declared
    )
    there = {one.trial for cell in order[:1] for one in compared.cells[cell].declared}
    there |= {one.trial for one in compared.cells[course_reference(compared)].declared}
    part = without(compared, there)
    cells = {**part.cells, order[1]: replace(data, declared=unscored, scored=())}
    settling = settled(replace(part, cells=cells), panel)
    assert settling.wanted == tuple(one.trial for one in unscored[:2])
    assert settling.ahead == ()


def course_reference(compared: Compared) -> CellKey:
    return Course(Evidence(compared, None), None).ranked_references()[0]


def test_a_candidate_that_is_found_within_the_margin_later_must_beat_the_bare_base_too() -> None:
    """It was called undecided, as what would settle it."""
    truth: Truth = lambda cell: -0.03 * (rank(cell) == 4)  # noqa: E731
    world = World(items=300, kept=0.9, base=0.69, seeds=3)
    compared = world.declared(RULE)
    again = 0
    for panel in world.panels(compared, truth, 60, 1):
        settling = settled(compared, panel)
        for cell in settling.order:
            look = settling.last_look(cell)
            if look is not None and look.no_gain:
                again += sum(one.cell == cell and one.seeds == 3 for one in settling.looks) > 1
                assert cell not in settling.undecided
    assert again > 0


def test_a_failed_training_refuses_its_candidate() -> None:
    compared, panel = drawn(fine)
    cheapest = settled(compared, panel).order[0]
    data = compared.cells[cheapest]
    first = replace(data.declared[0], status="diverged", reason="loss is nan", test=None)
    cells = {
        **compared.cells,
        cheapest: replace(data, declared=(first, *data.declared[1:]), scored=data.scored[1:]),
    }
    settling = settled(replace(compared, cells=cells), panel)
    assert settling.refused == {cheapest: "seed 0 diverged (loss is nan)"}
    assert settling.accepted == settling.order[1]


def with_lost(compared: Compared, cell: CellKey, place: int) -> Compared:
    """With one training of a cell diverged."""
    data = compared.cells[cell]
    lost = replace(data.declared[place], status="diverged", reason="x", test=None)
    declared = (*data.declared[:place], lost, *data.declared[place + 1 :])
    return replace(compared, cells={**compared.cells, cell: replace(data, declared=declared)})


def test_without_a_reference_nothing_is_judged_and_the_reason_is_told() -> None:
    compared, panel = drawn(fine)
    reference = settled(compared, panel).reference
    assert reference is not None
    settling = settled(with_lost(compared, reference, 1), panel)
    assert settling.accepted is None
    assert not settling.looks
    assert settling.no_reference == "fp16, rank 16: seed 1 diverged (x)"
    assert "there is no reference" in outcome(compared.study, settling, None)


def test_the_next_best_is_the_reference_where_the_best_failed() -> None:
    compared, panel = drawn(lambda cell: 0.1 * (rank(cell) == 8) - 0.1 * (rank(cell) == 4))
    rule = replace(RULE, reference_rank=None)
    compared = replace(compared, study=replace(compared.study, decide=rule))
    ranked = Course(Evidence(compared, panel), panel).ranked_references()
    assert [rank(cell) for cell in ranked] == [8, 16, 4]
    settling = Course(Evidence(with_lost(compared, ranked[0], 1), panel), panel).run()
    assert settling.reference == ranked[1]
    assert settling.accepted is not None


def test_nothing_ships_that_does_not_beat_the_bare_base() -> None:
    settling = settled(*drawn(fine, world=World(base=0.7)))
    assert settling.accepted is None
    assert settling.no_reference is None
    assert set(settling.refused.values()) == {"not shown to beat the bare base"}
    assert {look.no_gain for look in settling.looks if look.seeds == 6} == {True}
    assert "no adapter is shown to beat" in outcome(make_study([Trial("nf4")]), settling, None)


def test_a_named_rank_with_two_alphas_is_chosen_and_the_first_mode_stands_in() -> None:
    """With the rank named, nothing chose between its two alphas, and nothing shipped."""
    compared, panel = drawn(fine, world=World(seeds=2, modes=("int8", "nf4")))
    choices = [(cell.quant, rank(cell)) for cell in reference_choices(compared)]
    assert choices == [("int8", 4), ("int8", 8), ("int8", 16)]
    assert Course(Evidence(compared, panel), panel).run().accepted is not None
    study = replace(make_study([Trial("fp16", 16, alpha) for alpha in (16.0, 32.0)]), decide=RULE)
    both = Compared(study, Measure.accuracy, gather(study, Measure.accuracy), {})
    assert len(reference_choices(both)) == 2
    judging, choosing = (panel_of(both, chooses=one) for one in (False, True))
    assert judging is not None
    assert choosing is not None
    assert judging.items.items + choosing.items.items == 200
    alone = replace(study, trials=study.trials[:1])
    one = Compared(alone, Measure.accuracy, gather(alone, Measure.accuracy), {})
    everything = panel_of(one, chooses=False)
    assert everything is not None
    assert everything.items.items == 200
    assert panel_of(one, chooses=True) is None


def test_the_reference_is_chosen_by_items_that_judge_nothing() -> None:
    compared, panel = drawn(lambda cell: 0.1 * (rank(cell) == 8), world=World(seeds=2))
    rule = replace(RULE, reference_rank=None)
    compared = replace(compared, study=replace(compared.study, decide=rule))
    chosen = Course(Evidence(compared, panel), panel).run().reference
    assert chosen is not None
    assert rank(chosen) == 8
    assert Course(Evidence(without(compared, set()), panel), panel).run().wanted == tuple(
        compared.cells[cell].declared[0].trial
        for cell in compared.cells
        if cell.quant == "fp16" and not cell.base
    )


def test_each_may_spend_two_thirds_of_what_is_left_of_the_error_and_the_last_one_all() -> None:
    compared, panel = drawn(lambda cell: -0.3 * (cell.quant == "nf4" and rank(cell) == 4))
    course = Course(Evidence(compared, panel), None)
    reference = course.ranked_references()[0]
    looks = Looks(course.evidence, reference, course.candidates(reference))
    assert looks.part(looks.order[0]) == pytest.approx(0.05 / 2 * 2 / 3)
    for cell in looks.order[:4]:
        assert looks.take(cell, 2) is not None
    # The cheapest lies 30 points behind a margin of 5, and takes nothing from the others.
    parts = [looks.part(cell) / 0.025 for cell in looks.order]
    left = [1, 1, 1 / 3, 1 / 9, 1 / 27, 1 / 27, 1 / 27]
    assert parts == pytest.approx([2 / 3 * one for one in left] + [1 / 27])


def test_what_further_seeds_would_hardly_bring_within_the_margin_gets_none() -> None:
    """It was looked at until its seeds ended where it lay at the margin."""
    at_the_margin = drawn(lambda cell: -0.06 * (rank(cell) == 4), draw=4, world=World(own=0.002))
    settling = settled(*at_the_margin)
    look = settling.last_look(settling.order[0])
    assert look is not None
    assert look.out_of_reach
    # Had each further seed been as good as the reference, it would have come within the margin.
    assert look.seeds / 6 * -look.difference.value < 0.05
    assert settling.accepted == settling.order[1]


@pytest.mark.slow
def test_what_lies_at_the_margin_ships_seldom() -> None:
    """Eight candidates that are as bad as the margin: one of them ships in at most 5 %."""
    world = World(seeds=3, items=300)
    compared = world.declared(RULE)
    truth: Truth = lambda cell: -0.05 * ((cell.quant, rank(cell)) != ("fp16", 16))  # noqa: E731
    courses = [settled(compared, p) for p in world.panels(compared, truth, 200, 5)]
    wrong = sum(is_wrong(course, truth, RULE.margin_accuracy) for course in courses)
    # Were it 5 %, more than 18 of 200 would happen once in 150.
    assert wrong <= 18


def test_a_replay_has_a_row_for_the_chosen_reference_and_for_each_that_may_be_named() -> None:
    study = make_study(
        [Trial(q, r, seed=s) for q in ("fp16", "nf4") for r in (4, 8) for s in range(3)], 0.1
    )
    sizes = {one.trial: 10 * int(one.key.dials["rank"]) for one in study.trials}
    study = replace(study, adapter_parameters=sizes)
    table = [row.strip("| ").split(" | ") for row in rows(study)]
    references = [row[0] for row in table]
    assert references[0].startswith("chosen: fp16 rank ")
    assert references[1:] == ["named: fp16 rank 4", "named: fp16 rank 8"]
    for row, used in zip(table, needed_trials(study), strict=True):
        assert row[-1] == f"{used} of 12"


def needed_trials(study: Study) -> list[int]:
    """Trials that settling needs with the reference chosen, and with each rank named."""
    rules = [replace(study.decide, reference_rank=rank) for rank in (None, 4, 8)]
    return [len(settle_study(replace(study, decide=rule)).used) for rule in rules]
