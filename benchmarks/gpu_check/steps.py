"""Steps of the GPU check in the order of their value, each a process with a limit of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu_check.cases import SUBJECTS, Subject
from benchmarks.gpu_check.lines import FILE, Lines

REPOSITORY = Path(__file__).parents[2]
TESTS = REPOSITORY / "tests"
MARK = "pytest.mark.gpu"
TINY_TESTS = ("tests/adapters/test_layer_stack.py",)
"""Tests that the small check on a CPU runs: the suite runs the others anyway."""
TEST_PROCESSES = 4
TINY_PATIENCE = 4.0
"""Times its limit that a step of the small check may take: a CPU may have other work."""
SHORTEST_SECONDS = 10.0
"""A step that has less left is not begun: its imports take that long."""
END_SECONDS = 3.0
"""Of a step's limit, kept for its end: what it measures then is told."""


@dataclass(frozen=True)
class Check:
    """How one check runs."""

    device: str
    tiny: bool
    carried: Path
    output: Path

    @property
    def lines(self) -> Lines:
        """The file of results."""
        return Lines(self.output / "results.jsonl")

    @property
    def log(self) -> Path:
        """What all steps print."""
        return self.output / "log.txt"


@dataclass(frozen=True)
class Step:
    """One process."""

    name: str
    limit_seconds: float
    words: tuple[str, ...]
    """Arguments of this Python."""


def steps(check: Check) -> Iterator[Step]:
    """All steps: correctness, what packing gains in 4 bits, the study, and the rest of speed."""
    first, *others = SUBJECTS
    told = ("--lines", str(check.lines.path), "--device", check.device)
    yield Step("start", 60, module("start", *told))
    if check.tiny:
        yield Step("carry", 60, module("carry", str(check.carried), "--tiny"))
    yield Step("tests", 90, tests(check))
    yield speed(check, first)
    yield Step("study", 150, module("study", *told, "--carried", str(check.carried / "study")))
    for subject in others:
        yield speed(check, subject)


def module(name: str, *words: str) -> tuple[str, ...]:
    """Arguments that run a module of the check."""
    return ("-m", f"benchmarks.gpu_check.{name}", *words)


def tests(check: Check) -> tuple[str, ...]:
    """The marked tests, of the files that have some: others may import what is not there."""
    files = TINY_TESTS if check.tiny else tuple(marked_files())
    plugin = f"{__package__}.pytest_lines"
    spread = ("-n", str(TEST_PROCESSES), "--dist", "loadfile")
    can_spread = not check.tiny and find_spec("xdist") is not None
    return (
        "-m", "pytest", "-q", "-m", "gpu", "-p", plugin, "-p", "no:cacheprovider",
        *(spread if can_spread else ()), *files,
    )  # fmt: skip


def marked_files() -> list[str]:
    """Test files with a test that takes the device."""
    files = sorted(TESTS.rglob("test_*.py"))
    marked = [path for path in files if MARK in path.read_text(encoding="utf-8")]
    return [str(path.relative_to(REPOSITORY)) for path in marked]


def speed(check: Check, subject: Subject) -> Step:
    """Time and memory of one base in one mode."""
    words = [
        "--subject", subject.name, "--lines", str(check.lines.path), "--device", check.device,
        "--plans", str(check.carried / "plans.json"),
        "--seconds", str(subject.limit_seconds - END_SECONDS),
        *(["--tiny"] if check.tiny else []),
    ]  # fmt: skip
    return Step(subject.name, subject.limit_seconds, module("speed", *words))


def run_step(step: Step, check: Check, deadline: float, site: Path | None) -> None:
    """Run a step until it ends or its time is over, and tell how it ended.

    Args:
        deadline: `time.monotonic()` of the whole check's end.
        site: folder with packages that this machine lacks.
    """
    patience = TINY_PATIENCE if check.tiny else 1.0
    left = deadline - time.monotonic()
    limit = min(patience * step.limit_seconds, left)
    if left < SHORTEST_SECONDS:
        check.lines.add(step.name, "end", ended="left out: the check's time was over", seconds=0.0)
        return
    started = time.monotonic()
    with check.log.open("a", encoding="utf-8") as log:
        log.write(f"\n== {step.name}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *step.words], cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True, env=environment(check, site),
        )  # fmt: skip
        try:
            code = process.wait(limit)
            ended = "well" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit:.0f} s"
        finally:
            # Its children too: they would disturb the next step.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = round(time.monotonic() - started, 1)
    check.lines.add(step.name, "end", ended=ended, seconds=seconds)


def environment(check: Check, site: Path | None) -> Mapping[str, str]:
    """This process's own, for steps that import the checkout and reach for no network."""
    places = [REPOSITORY / "src", REPOSITORY, *([site] if site else [])]
    former = os.environ.get("PYTHONPATH", "")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, places), *([former] if former else [])]),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "LORASCOPE_TEST_DEVICE": check.device,
        FILE: str(check.lines.path),
    }
