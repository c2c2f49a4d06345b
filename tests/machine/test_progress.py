"""The time left, where work comes in batches, begins slowly, or changes its pace."""

from __future__ import annotations

import re
import time

import pytest

from lorascope.machine.progress import StepProgress

Steps = list[tuple[float, int, int, str]]
"""Seconds that pass before a call, and what it says: done, total, unit."""


def batches(unit: str, total: int, size: int, seconds: float, first: float) -> Steps:
    """Batches of like length, of which the first has to wait for something."""
    ends = range(size, total + size, size)
    return [(first if end == size else seconds, min(end, total), total, unit) for end in ends]


@pytest.mark.parametrize(
    "steps",
    [
        batches("steps", 100, 1, 0.3, 0.3),
        batches("steps", 100, 1, 0.3, 6.0),
        batches("losses", 1600, 64, 0.6, 1.2),
        [*batches("losses", 640, 64, 0.1, 0.5), *batches("answers", 640, 64, 3.0, 3.5)],
    ],
    ids=["even", "slow first step", "batches", "answers after losses"],
)
def test_the_time_left_is_right_within_a_factor_of_two_after_a_tenth(
    steps: Steps, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr("lorascope.machine.progress.LINE_INTERVAL_SECONDS", 0.0)
    show = StepProgress("title", unit=steps[0][3])
    took = {unit: sum(s[0] for s in steps if s[3] == unit) for unit in {s[3] for s in steps}}
    spent = dict.fromkeys(took, 0.0)
    judged = 0
    for seconds, done, total, unit in steps:
        now += seconds
        spent[unit] += seconds
        show(done, total, unit=unit)
        line = capsys.readouterr().err
        assert f"{done}/{total} {unit}" in line
        # The first step that is slow is no measure yet: a tenth is more than one.
        if total * 0.1 <= done < total and done > steps[0][1]:
            left = _seconds(line)
            true = took[unit] - spent[unit]
            assert true / 2 - 0.5 <= left <= true * 2 + 0.5, line
            judged += 1
    assert judged > 5


def _seconds(line: str) -> float:
    found = re.search(r", (\d+) (s|min) left", line)
    assert found, line
    return int(found[1]) * (60 if found[2] == "min" else 1)


def test_work_of_less_than_two_seconds_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    show = StepProgress("title")
    for step in range(1, 11):
        now += 0.19
        show(step, 10)
    assert capsys.readouterr().err == ""
    show = StepProgress("title")
    for step in range(1, 4):
        now += 1.5
        show(step, 4)
    assert capsys.readouterr().err.splitlines() == ["title:  50%|######      | 2/4 steps, 3 s left"]
