"""Children: values, reports, errors, signals and time limits reach the parent as what they are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lorascope.errors import ConfigError
from lorascope.execution.local.process import Outcome, run_isolated

PRELOAD = "lorascope.errors"


def run(function: Callable[..., Any], argument: Any = None, **options: Any) -> Outcome:
    return run_isolated(function, argument, lambda content: None, preload=PRELOAD, **options)


def double(number: int, report: Callable[[Any], bool]) -> int:
    report(("seen", number))
    print("a line on standard output")
    return 2 * number


def test_a_child_of_one_of_joblibs_workers_gives_its_value() -> None:
    """`hydra/launcher=joblib` trains in such workers."""
    joblib = pytest.importorskip("joblib")
    outcomes = joblib.Parallel(n_jobs=2)(joblib.delayed(run)(double, n) for n in (2, 3))
    assert [outcome.value for outcome in outcomes] == [4, 6]


def fail_with_bad_input(argument: Any, report: Callable[[Any], bool]) -> None:
    raise ConfigError("lora.rank", 0, "too small", "Try 8.")


def die(argument: Any, report: Callable[[Any], bool]) -> None:
    print("about to die", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


class Unsendable(Exception):
    """Rebuilding it needs two arguments, which pickle does not know."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.lock = __import__("threading").Lock()


def fail_unsendably(argument: Any, report: Callable[[Any], bool]) -> None:
    raise Unsendable("odd", "error")


def leave(code: int, report: Callable[[Any], bool]) -> None:
    print("leaving", flush=True)
    os._exit(code)


def sleep(seconds: float, report: Callable[[Any], bool]) -> None:
    time.sleep(seconds)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_value_and_its_reports_come_back(fresh: bool) -> None:
    seen: list[Any] = []
    outcome = run_isolated(double, 21, seen.append, preload=PRELOAD, fresh=fresh)
    assert outcome.value == 42
    assert seen == [("seen", 21)]
    assert outcome.last_lines == ["a line on standard output"]


def test_an_error_comes_back_whole() -> None:
    outcome = run(fail_with_bad_input)
    assert isinstance(outcome.error, ConfigError)
    assert str(outcome.error) == "lora.rank=0: too small. Try 8."
    assert "fail_with_bad_input" in outcome.error.__notes__[0]


def test_a_killed_child_is_told_apart_and_keeps_its_last_words() -> None:
    outcome = run(die)
    assert outcome.exit_signal == signal.SIGKILL
    assert outcome.last_lines == ["about to die"]


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    outcome = run(fail_unsendably)
    assert "Unsendable: odd" in str(outcome.error)


@pytest.mark.parametrize("code", [0, 3])
def test_a_child_that_leaves_without_a_word_is_an_error_and_no_kill(code: int) -> None:
    outcome = run(leave, code)
    assert outcome.exit_signal is None
    assert f"exit code {code}" in str(outcome.error)
    assert "leaving" in str(outcome.error)


def test_a_time_limit_ends_the_child() -> None:
    started = time.monotonic()
    outcome = run(sleep, 60.0, timeout_seconds=3.0)
    assert outcome.timed_out
    assert time.monotonic() - started < 20


def send_oneself(numbers: list[int], report: Callable[[Any], bool]) -> str:
    for number in numbers:
        os.kill(os.getpid(), number)
    return "still here"


@pytest.mark.parametrize("fresh", [False, True])
def test_what_a_terminal_or_a_cluster_sends_to_all_is_not_heard_by_a_child(fresh: bool) -> None:
    outcome = run(send_oneself, [signal.SIGINT, signal.SIGTERM], fresh=fresh)
    assert outcome.value == "still here"
    # This process still hears.
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}


def count_until_stopped(most: int, report: Callable[[Any], bool]) -> int:
    for count in range(most):
        if report(count):
            return count
        time.sleep(0.01)
    return most


@pytest.mark.parametrize("fresh", [False, True])
def test_a_child_learns_that_it_should_stop_when_it_reports(fresh: bool) -> None:
    stop, asking = multiprocessing.Pipe(duplex=False)

    def ask_at_three(count: int) -> None:
        if count == 3:
            asking.close()

    outcome = run_isolated(
        count_until_stopped, 3000, ask_at_three, preload=PRELOAD, fresh=fresh, stop=stop
    )
    assert 3 <= outcome.value < 3000


def write_and_wait(path: str, report: Callable[[Any], bool]) -> None:
    with open(path, "w") as stream:
        stream.write(str(os.getpid()))
    time.sleep(60)


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        f"from tests.execution.test_isolation import run, write_and_wait;"
        f"run(write_and_wait, {str(child)!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 30
    while not (child.is_file() and child.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process = psutil.Process(int(child.read_text()))
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([process], timeout=10)[1]
