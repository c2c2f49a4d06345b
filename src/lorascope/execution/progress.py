"""How far a sweep is, in two lines: rewritten in a terminal, appended now and then elsewhere."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lorascope.execution.clock import RunningPack, SweepClock
from lorascope.machine.progress import (
    LINE_INTERVAL_SECONDS,
    TERMINAL_INTERVAL_SECONDS,
    duration,
)
from lorascope.records import Status, TrialRecord
from lorascope.training.progress import StepReport, ValidationReport

DEFAULT_COLUMNS = 80


@dataclass
class SweepState:
    """What there is to be told."""

    trials: int
    """In all, those included that were there before."""
    clock: SweepClock
    records: list[TrialRecord] = field(default_factory=list)
    """Of trials that have ended."""
    lost: int = 0
    """Trials that ended without a record, which count as failed."""


def sweep_lines(state: SweepState, now: float) -> tuple[str, str]:
    """The whole sweep, and the packs that run."""
    running, ended = state.clock.running, Counter(record.status for record in state.records)
    ended[Status.failed] += state.lost
    counts = [f"{ended[Status.completed]}/{state.trials} trials done"]
    counts += [
        f"{ended[status]} {status.replace('_', ' ')}"
        for status in Status
        if status is not Status.completed and ended[status]
    ]
    if running:
        counts.append(f"{sum(pack.trials for pack in running)} running")
    losses = [(r.result.validation_loss_nats, r.trial) for r in state.records if r.result]
    # Losses of different objectives are not ranked.
    if losses and len({record.objective for record in state.records}) == 1:
        loss, name = min(losses, key=lambda one: one[0])
        # The hash would not fit; the trial's own line has it.
        counts.append(f"best {loss:.4f} {name.rpartition('-')[0]}")
    phases = _phases(state.clock) if running else []
    if seconds := state.clock.seconds_left(now):
        phases.append(f"about {duration(seconds)} left")
    return ", ".join(counts), ", ".join(phases)


def _phases(clock: SweepClock) -> list[str]:
    """Of each pack; of all, losses and speed."""
    phases = [pack.phase for pack in clock.running]
    words = [" + ".join(dict.fromkeys(_words(phase) for phase in phases))]
    steps = [phase for phase in phases if isinstance(phase, StepReport)]
    # A trial that diverged leaves the others as they are.
    losses_nats = [loss for s in steps for loss in s.losses_nats if math.isfinite(loss)]
    if losses_nats:
        words.append(f"loss {sum(losses_nats) / len(losses_nats):.3f}")
    if steps and clock.tokens_per_second is not None:
        words.append(f"{clock.tokens_per_second:,.0f} tokens/s")
    return words


def _words(phase: StepReport | ValidationReport | None) -> str:
    if phase is None:
        return "loading"
    if isinstance(phase, StepReport):
        return f"training, step {phase.step}/{phase.steps}"
    more = phase.validated < phase.trials
    return f"validating {phase.validated + 1}/{phase.trials}" if more else "finishing"


def sentence(record: TrialRecord) -> str:
    """How a trial ended."""
    if record.result is None:
        return f"{record.trial}: {record.status}, {record.reason}"
    result = record.result
    count, stopped, saved = result.trials_at_once, result.stopped_at_step, result.saved_step
    together = f" ({count} at once)" if count > 1 else ""
    early = "" if stopped is None else f", stopped at step {stopped}"
    best = "" if saved in (None, result.steps) else f", best of step {saved}"
    return (
        f"{record.trial}: validation loss {result.validation_loss_nats:.4f} nats, "
        f"{result.trainable_parameters:,} trainable, {result.train_seconds:.1f} s{together}"
        f"{early}{best}"
    )


class SweepProgress:
    """Tells of one sweep as it goes; packs may call it from threads of their own. It says nothing
    before there is something to wait for."""

    def __init__(self, trials: int, slots: int = 1) -> None:
        self._clock = SweepClock(trials, slots)
        self.state = SweepState(trials, self._clock)
        # A signal's handler may come while the same thread holds it.
        self._lock = threading.RLock()
        self._terminal = sys.stderr.isatty()
        self._interval = TERMINAL_INTERVAL_SECONDS if self._terminal else LINE_INTERVAL_SECONDS
        self._shown = -math.inf
        self._lines_on_screen = 0

    def add_known(self, records: Sequence[TrialRecord]) -> None:
        """Trials that are there already."""
        with self._lock:
            self.state.records += records
            self._clock.leave_out(len(records))

    def add_found(self, records: Sequence[TrialRecord]) -> None:
        """Trials that another process has trained since this sweep began."""
        if not records:
            return
        with self._lock:
            self.add_known(records)
            self._tell(records, "trained by another process: ")

    def start(self) -> None:
        """Libraries are loaded, which takes seconds."""
        with self._lock:
            self._show(at_once=self._terminal)

    def start_pack(self, trials: int) -> RunningPack:
        """A child begins to load what `trials` trials need."""
        with self._lock:
            pack = self._clock.start_pack(trials, time.monotonic())
            self._show(at_once=self._terminal)
        return pack

    def report(self, pack: RunningPack, phase: StepReport | ValidationReport) -> None:
        """The pack is so far."""
        with self._lock:
            changed = type(phase) is not type(pack.phase)
            pack.report(phase, time.monotonic())
            self._show(at_once=changed and self._terminal)

    def end_pack(self, pack: RunningPack, records: Sequence[TrialRecord], lost: int = 0) -> None:
        """Trials have ended with these records, and `lost` ones without; others of the pack are
        tried again."""
        with self._lock:
            self._clock.end_pack(pack, len(records) + lost, time.monotonic())
            self.state.records += records
            self.state.lost += lost
            self._tell(records)

    def _tell(self, records: Sequence[TrialRecord], before: str = "") -> None:
        self.clear()
        for record in records:
            print(f"{before}{sentence(record)}", flush=True)
        if records:
            print("; ".join(self._lines(time.monotonic())), file=sys.stderr, flush=True)

    def note(self, sentence: str) -> None:
        """Other words, for whoever watches."""
        self.clear()
        print(sentence, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for other words."""
        with self._lock:
            if self._lines_on_screen:
                up = f"\x1b[{self._lines_on_screen - 1}A" if self._lines_on_screen > 1 else ""
                print(f"\r{up}\x1b[J", end="", file=sys.stderr, flush=True)
            self._lines_on_screen = 0

    def __enter__(self) -> SweepProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def leave(self) -> None:
        """What is on the screen stays there: others write below it."""
        self._lines_on_screen = 0

    def _show(self, at_once: bool) -> None:
        now = time.monotonic()
        if not at_once and now - self._shown < self._interval:
            return
        lines = self._lines(now)
        if self._terminal:
            self.clear()
            width = _columns() - 1
            print("\n".join(line[:width] for line in lines), end="", file=sys.stderr, flush=True)
            self._lines_on_screen = len(lines)
        else:
            print("; ".join(lines), file=sys.stderr, flush=True)

    def _lines(self, now: float) -> list[str]:
        self._shown = now
        return [line for line in sweep_lines(self.state, now) if line]


def _columns() -> int:
    try:
        # A terminal that does not know its size says 0.
        return os.get_terminal_size(sys.stderr.fileno()).columns or DEFAULT_COLUMNS
    except OSError:
        return DEFAULT_COLUMNS
