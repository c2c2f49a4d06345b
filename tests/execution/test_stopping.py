"""Ctrl-C and SIGTERM in a sweep that is watched in a terminal: saved first, the same bits later."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lorascope.execution import sweep
from lorascope.execution.stop import stop_request
from lorascope.files.layout import Layout
from lorascope.records import LossPoint, TrialRecord
from lorascope.study.grid import expand
from tests.conftest import BASE_OVERRIDES

SWEEP = (
    "quant=nf4", "lora.rank=1,4", "lora.alpha=8", "lora.dropout=0.1", "train.steps=150",
    "train.log_every_steps=20", "runtime.pack_trials=2",
)  # fmt: skip


@dataclass
class Terminal:
    """A sweep that runs in a terminal of its own."""

    process: subprocess.Popen[bytes]
    screen: int
    seen: str = ""

    def press(self, number: int) -> None:
        """A terminal, and a cluster, signal all processes of the group."""
        os.killpg(self.process.pid, number)

    def wait_for(self, pattern: str) -> None:
        """Read until `pattern` is in what has not been waited for yet."""
        start, deadline = len(self.seen), time.monotonic() + 120
        while not re.search(pattern, self.seen[start:], re.DOTALL):
            assert time.monotonic() < deadline, self.seen
            assert self._read(), self.seen

    def end(self) -> int:
        """The exit code; all that was shown is in `seen`."""
        while self._read():
            pass
        return self.process.wait(timeout=60)

    def _read(self) -> bool:
        """Whether there may be more."""
        if select.select([self.screen], [], [], 0.2)[0]:
            try:
                self.seen += os.read(self.screen, 65536).decode()
            except OSError:
                # How Linux says that nobody can write any more.
                return False
        return True


@contextmanager
def sweep_in_terminal(project: Layout, *own: str) -> Iterator[Terminal]:
    screen, inside = pty.openpty()
    command = [str(Path(sys.executable).parent / "lorascope"), "train-lora", "-m"]
    process = subprocess.Popen(
        [*command, *BASE_OVERRIDES, *SWEEP, *own], cwd=project.root, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=inside, stderr=inside,
    )  # fmt: skip
    os.close(inside)
    try:
        yield Terminal(process, screen)
    finally:
        process.kill()
        process.wait()
        os.close(screen)


Results = dict[str, tuple[str, float, list[LossPoint], int]]


def results(records: list[TrialRecord]) -> Results:
    """What must not depend on interruptions."""
    return {
        r.trial: (
            r.result.adapter_sha256, r.result.validation_loss_nats, r.result.losses,
            r.result.processed_tokens,
        )
        for r in records
        if r.result
    }  # fmt: skip


def scratch(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".*")]


@pytest.fixture(scope="module")
def undisturbed(project: Layout) -> Results:
    """What a sweep of both seeds gives in one go; a thread each, whatever is side by side."""
    words = [*BASE_OVERRIDES, *SWEEP, "seed=912,913", "runtime.threads=2"]
    return results(sweep.run_sweep(expand(project, words), project))


def untrained(project: Layout, trials: Results, aside: Path) -> Path:
    """The folder of the mode's trials, without these."""
    folder = project.trials("nf4")
    for name in trials:
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "moment", "kept", "saved", "threads"),
    [
        # In the second pack, when there is something to lead.
        (signal.SIGTERM, 143, r"2/4 trials done, 2 running, best .*training, step", 2, 2, 1),
        # Two packs side by side, both saved.
        (signal.SIGINT, 130, r"4 running.*step [1-9]\d", 0, 4, 2),
    ],
)
def test_a_sweep_saves_before_it_stops_and_ends_with_the_bits_of_an_undisturbed_one(
    project: Layout, undisturbed: Results, tmp_path: Path, number: int, code: int, moment: str,
    kept: int, saved: int, threads: int,
) -> None:  # fmt: skip
    own = ("seed=912,913", f"runtime.threads={threads}")
    assert len(undisturbed) == 4
    folder = untrained(project, undisturbed, tmp_path)
    with sweep_in_terminal(project, *own) as terminal:
        terminal.wait_for(moment)
        terminal.press(number)
        assert terminal.end() == code, terminal.seen
    assert "stopping after saving; press again to stop at once" in terminal.seen
    assert re.search(r"saved at step \d+/150; the same command goes on", terminal.seen)
    assert "Traceback" not in terminal.seen
    assert [(folder / name).exists() for name in undisturbed].count(True) == kept
    assert not scratch(folder)
    resumed = sweep.run_sweep(expand(project, [*BASE_OVERRIDES, *SWEEP, *own]), project)
    assert results(resumed) == undisturbed
    steps = [r.result.resumed_at_step for r in resumed if r.result]
    assert [step > 0 for step in steps].count(True) == saved
    # Other tests leave some.
    assert not any((project.checkpoints / record.identity).exists() for record in resumed)


@pytest.mark.slow
def test_the_second_press_stops_all_packs_at_once(project: Layout) -> None:
    own = ("seed=914,915", "runtime.pack_trials=4", "runtime.threads=2")
    with sweep_in_terminal(project, *own) as terminal:
        terminal.wait_for("validating")
        terminal.press(signal.SIGINT)
        terminal.wait_for("press again")
        terminal.press(signal.SIGINT)
        assert terminal.end() == 130, terminal.seen
    assert "Traceback" not in terminal.seen
    # A pack would have been kept had it been waited for.
    assert not list(project.trials("nf4").glob("*-s914-*"))
    assert not scratch(project.trials("nf4"))


def test_nothing_to_save_stops_at_the_first_press() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    heard: list[str] = []
    with pytest.raises(KeyboardInterrupt), stop_request(lambda: heard.append("first")):
        os.kill(os.getpid(), signal.SIGINT)
    assert not heard
    with pytest.raises(SystemExit, match="143"), stop_request(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As SIGINT is in what a script puts into the background."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_request(lambda: None) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            stop.end_if_asked()
    finally:
        signal.signal(signal.SIGINT, former)


def test_the_first_press_asks_and_the_second_ends(capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    with stop_request(lambda: heard.append("first")) as stop:
        stop.worth_saving.add("a pack")
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        assert "press again" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            stop.end_if_asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert heard == ["first"]


@pytest.mark.slow
def test_what_was_saved_goes_on_in_a_sweep_that_declares_more(
    project: Layout, undisturbed: Results, tmp_path: Path
) -> None:
    # Two packs side by side would have a thread each, and two trials alone all threads.
    own = ["seed=912", "runtime.threads=1"]
    expected = {name: told for name, told in undisturbed.items() if "-s912-" in name}
    assert len(expected) == 2
    folder = untrained(project, expected, tmp_path)
    with sweep_in_terminal(project, *own) as terminal:
        terminal.wait_for(r"training, step")
        terminal.press(signal.SIGINT)
        assert terminal.end() == 130, terminal.seen
    assert not any((folder / name).exists() for name in expected)
    # By rank, 1 and 2 would be a pack, and 4 and 8.
    wider = ["lora.rank=1,2,4,8" if one == "lora.rank=1,4" else one for one in SWEEP]
    records = sweep.run_sweep(expand(project, [*BASE_OVERRIDES, *wider, *own]), project)
    resumed = {r.trial for r in records if r.result and r.result.resumed_at_step > 0}
    assert resumed == set(expected)
    assert {name: told for name, told in results(records).items() if name in resumed} == expected
    assert not any((project.checkpoints / record.identity).exists() for record in records)
