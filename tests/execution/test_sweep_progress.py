"""What people who wait for a sweep are told, and how often."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from lorascope.execution.clock import SweepClock
from lorascope.execution.progress import SweepProgress, SweepState, sweep_lines
from lorascope.machine.progress import duration
from lorascope.records import Status, TrialRecord
from lorascope.training.progress import StepReport, ValidationReport
from tests.study_factory import Trial, trial_record
from tests.test_layers import HEAVY


def step(step: int, losses_nats: Sequence[float] = (), tokens: int = 0) -> StepReport:
    return StepReport(step, 100, list(losses_nats), tokens)


def state_of(trials: int, *running: tuple[int, StepReport | ValidationReport | None]) -> SweepState:
    """Of a sweep that runs packs of so many trials, each in its phase."""
    clock = SweepClock(trials)
    for count, phase in running:
        clock.start_pack(count, 0.0).phase = phase
    return SweepState(trials, clock)


def records(*trials: Trial) -> list[TrialRecord]:
    return [trial_record(trial) for trial in trials]


GOOD, BETTER = Trial("nf4", 4, loss_nats=0.6), Trial("nf4", 16, loss_nats=0.5)
DIVERGED = Trial("nf4", 64, status=Status.diverged, reason="nan at step 3")
REFUSED = Trial("nf4", 128, status=Status.out_of_memory, reason="no room")


def test_counts_the_best_and_the_running_pack_are_told() -> None:
    state = state_of(48, (8, None))
    state.records += records(BETTER, DIVERGED, GOOD, REFUSED)
    state.clock.leave_out(40)
    for done, tokens in ((4, 0), (40, 409_876)):
        state.clock.running[0].report(step(done, [1.0, 2.0], tokens), 0.2 * done)
    # 10,246.9 tokens and a fifth of a second for each of 60 steps; all before took as long.
    first, second = sweep_lines(state, 8.0)
    best = trial_record(BETTER)
    assert best.result is not None
    assert first == (
        "2/48 trials done, 1 diverged, 1 out of memory, 8 running, "
        f"best {best.result.validation_loss_nats:.4f} {best.trial.rpartition('-')[0]}"
    )
    assert second == "training, step 40/100, loss 1.500, 51,234 tokens/s, about 12 s left"


def test_losses_of_different_objectives_are_not_ranked() -> None:
    state, other = state_of(2), records(GOOD)[0]
    state.records += records(BETTER)
    assert "best" in sweep_lines(state, 0.0)[0]
    state.records += [replace(other, settings={**other.settings, "train": {"objective": "other"}})]
    assert sweep_lines(state, 0.0)[0] == "2/2 trials done"


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (None, "loading"),
        (step(1), "training, step 1/100"),
        # The mean is that of the trials that go on.
        (step(2, [math.nan, 2.0]), "training, step 2/100, loss 2.000"),
        (ValidationReport(0, 8), "validating 1/8"),
        (ValidationReport(8, 8), "finishing"),
    ],
)
def test_what_a_child_does_is_a_word(
    phase: StepReport | ValidationReport | None, words: str
) -> None:
    assert sweep_lines(state_of(9, (8, phase)), 0.0) == (
        "0/9 trials done, 8 running",
        words,
    )


def test_packs_side_by_side_are_told_together() -> None:
    state = state_of(9, (4, step(40, [1.0, 2.0])), (3, step(38, [3.0, math.nan])))
    ahead, behind = state.clock.running
    assert sweep_lines(state, 0.0) == (
        "0/9 trials done, 7 running",
        "training, step 40/100 + training, step 38/100, loss 2.000",
    )
    ahead.phase = ValidationReport(3, 4)
    assert sweep_lines(state, 0.0)[1].startswith(
        "validating 4/4 + training, step 38/100, loss 3.000"
    )
    ahead.phase = behind.phase = None
    assert sweep_lines(state, 0.0)[1] == "loading"


def test_what_is_not_known_is_left_out() -> None:
    assert sweep_lines(state_of(9), 0.0) == ("0/9 trials done", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5400, "90 min"), (12000, "3 h 20 min")],
)
def test_durations_have_few_digits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_time_left_comes_from_the_steps_of_the_first_pack() -> None:
    clock = SweepClock(12)
    pack = clock.start_pack(4, 0.0)
    assert clock.seconds_left(9.0) is None
    pack.report(step(1), 10.0)
    pack.report(step(2), 11.0)
    assert clock.seconds_left(11.0) is None
    pack.report(step(11, tokens=1100), 20.0)
    # Loading and the first step 10 s, 1 s a step: 109 s for 4 trials, of which 20 s are gone.
    assert clock.seconds_left(20.0) == pytest.approx(109 - 20 + 2 * 109)
    assert clock.tokens_per_second == pytest.approx(100)


def test_time_left_of_later_packs_comes_from_those_that_ended() -> None:
    clock = SweepClock(7)
    clock.leave_out(1)
    clock.end_pack(clock.start_pack(2, 0.0), 2, 20.0)
    assert clock.seconds_left(25.0) == pytest.approx(40)
    pack = clock.start_pack(2, 30.0)
    assert clock.seconds_left(35.0) == pytest.approx(35)
    # A pack that is slower than expected says nothing impossible.
    assert clock.seconds_left(90.0) == pytest.approx(20)
    clock.end_pack(pack, 2, 50.0)
    clock.end_pack(clock.start_pack(2, 50.0), 2, 70.0)
    assert clock.seconds_left(70.0) == 0


def test_time_left_of_packs_side_by_side() -> None:
    clock = SweepClock(10, slots=2)
    first, second = clock.start_pack(3, 0.0), clock.start_pack(3, 0.0)
    for pack, pace in ((first, 1.0), (second, 2.0)):
        pack.report(step(1, tokens=10), 10.0)
        assert clock.seconds_left(10.0) is None
        pack.report(step(11, tokens=110), 10.0 + 10 * pace)
    # In all 109 and 208 s; a trial takes 317 / 6 s of a lane.
    assert clock.seconds_left(30.0) == pytest.approx((79 + 178 + 4 * 317 / 6) / 2)
    assert clock.tokens_per_second == pytest.approx(10 + 5)
    clock.end_pack(first, 3, 109.0)
    # Nothing is left to start but four trials at 109 / 3 s each; the second pack takes until 208 s.
    assert clock.seconds_left(109.0) == pytest.approx((99 + 4 * 109 / 3) / 2)
    clock.leave_out(4)
    assert clock.seconds_left(109.0) == pytest.approx(99)


def test_a_resumed_pack_is_judged_by_its_own_steps() -> None:
    clock = SweepClock(1)
    pack = clock.start_pack(1, 0.0)
    # As many tokens were read before.
    for reached, now, tokens in ((81, 10.0, 0), (90, 19.0, 9000), (91, 20.0, 9000)):
        pack.report(step(reached, tokens=tokens), now)
    assert clock.seconds_left(20.0) == pytest.approx(9)
    assert clock.tokens_per_second == pytest.approx(100)


def test_steps_that_were_done_before_somebody_listened_are_nobodys_speed() -> None:
    clock = SweepClock(1)
    pack = clock.start_pack(1, 0.0)
    for reached, now in ((1, 5.0), (50, 5.001), (80, 5.002), (81, 6.0), (90, 15.0)):
        pack.report(step(reached, tokens=reached * 100), now)
    assert clock.tokens_per_second == pytest.approx(100, rel=1e-3)
    assert clock.seconds_left(15.0) == pytest.approx(10, rel=1e-3)


def test_without_a_terminal_lines_are_few_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    with SweepProgress(3) as show:
        show.add_known(records(GOOD))
        pack = show.start_pack(2)
        for reached in range(1, 101):
            show.report(pack, step(reached))
        show.report(pack, ValidationReport(0, 2))
        show.end_pack(pack, records(BETTER, DIVERGED))
    out, err = capsys.readouterr()
    best = f"best {0.51:.4f} {trial_record(BETTER).trial.rpartition('-')[0]}"
    assert err.splitlines()[0].startswith("1/3 trials done, 2 running, best 0.61")
    assert err.splitlines()[0].endswith("; loading")
    assert err.splitlines()[1:] == [f"2/3 trials done, 1 diverged, {best}"]
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        record.trial for record in records(BETTER, DIVERGED)
    ]


def test_a_sweep_that_is_there_already_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with SweepProgress(2) as show:
        show.add_known(records(GOOD, BETTER))
    assert capsys.readouterr() == ("", "")


def test_whoever_waits_for_a_pack_loads_no_library_that_trains() -> None:
    code = f"import sys, lorascope.execution.sweep; print({HEAVY} & sys.modules.keys())"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"


def test_trials_that_end_without_a_record_count_as_failed() -> None:
    show = SweepProgress(4)
    show.end_pack(show.start_pack(4), [], lost=4)
    assert sweep_lines(show.state, 0.0) == ("0/4 trials done, 4 failed", "")
