"""Wall seconds of commands, taken in turns, and the ratios of two sides."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

TIMEOUT_SECONDS = 1800
KEPT_CHARACTERS = 600
TOOLS = Path(sys.executable).parent
"""Where this environment's `lorascope` and `dvc` lie."""

NOT_INHERITED = ("MLFLOW_TRACKING_URI", "TORCHDYNAMO_DISABLE")
"""A store of the user's own would be filled with trials of no interest; and what lorascope's
command line sets for itself alone must not reach a bare script by another way."""

Side = Callable[[int], float]
"""Runs one side of a comparison in the given round, in fresh folders; its wall seconds."""


class BenchmarkError(Exception):
    """A command that was to be timed failed."""


@dataclass(frozen=True)
class Command:
    """One process to be timed."""

    words: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside what this process has itself."""
    exit_code: int = 0
    """What it is expected to end with."""


@dataclass(frozen=True)
class Ratios:
    """How two sides compare: one ratio a round, so that a slow minute weighs on both."""

    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        return median(self.values)

    @property
    def lowest(self) -> float:
        return min(self.values)

    @property
    def highest(self) -> float:
        return max(self.values)


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Ratios:
    """Round by round, numerator over denominator.

    Raises:
        BenchmarkError: there is no round, or a side was measured in fewer rounds than the other.
    """
    if not numerators or len(numerators) != len(denominators):
        raise BenchmarkError(
            f"{len(numerators)} and {len(denominators)} measured rounds cannot be paired: a side "
            "was interrupted. Run `make bench` again."
        )
    return Ratios(tuple(n / d for n, d in zip(numerators, denominators, strict=True)))


def in_turns(sides: Sequence[Side], rounds: int) -> list[list[float]]:
    """Seconds of each side by round, measured A B A B: [sides][rounds]."""
    seconds: list[list[float]] = [[] for _ in sides]
    for index in range(rounds):
        for side, taken in zip(sides, seconds, strict=True):
            taken.append(side(index))
    return seconds


def always(command: Command) -> Side:
    """A side that runs the same command in every round."""
    return lambda _: seconds_in_sequence([command])


def seconds_in_sequence(commands: Sequence[Command]) -> float:
    """Wall seconds of all commands, one after the other."""
    return sum(_timed(partial(run, command)) for command in commands)


def seconds_side_by_side(commands: Sequence[Command], processes: int) -> float:
    """Wall seconds of all commands where `processes` of them run at any time."""

    def all_of_them() -> None:
        with ThreadPoolExecutor(processes) as pool:
            try:
                list(pool.map(run, commands))
            except BaseException:
                # Those that have not started would only disturb what is measured next.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    return _timed(all_of_them)


def environment_of(command: Command) -> dict[str, str]:
    """This process's own, without `NOT_INHERITED`, with the command's."""
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {**inherited, "PATH": path, **command.environment}


def run(command: Command, started: Callable[[int], None] = lambda _: None) -> str:
    """What the command prints on both streams.

    Args:
        started: gets the process's number; must return at once.

    Raises:
        BenchmarkError: it ended with another exit code than expected, or took too long.
    """
    named = " ".join(
        Path(command.words[0]).name if i == 0 else w for i, w in enumerate(command.words)
    )
    # A group of its own: what a command started must not outlive it and disturb the next one.
    process = subprocess.Popen(
        command.words, cwd=command.folder, env=environment_of(command), text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        started(process.pid)
        printed, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"no end within {TIMEOUT_SECONDS} s: {named}") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != command.exit_code:
        raise BenchmarkError(
            f"exit code {process.returncode} instead of {command.exit_code}: {named}: "
            f"{printed[-KEPT_CHARACTERS:].strip()}"
        )
    return printed


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
