"""How far a sweep is, in two lines: rewritten in a terminal, appended now and then elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lorascope.pack_progress import StepReport, ValidationReport
from lorascope.progress import LINE_INTERVAL_SECONDS, TERMINAL_INTERVAL_SECONDS
from lorascope.records import Status, TrialRecord
from lorascope.stages.sweep_clock import SweepClock

DEFAULT_COLUMNS = 80


@dataclass
class SweepState:
    """What there is to be told."""

    trials: int
    """In all, those included that were there before."""
    ended: Counter[Status] = field(default_factory=Counter)
    best: TrialRecord | None = None
    """That with the smallest validation loss."""
    running: int = 0
    phase: StepReport | ValidationReport | None = None
    """Of the pack at hand; None before its first step is done."""
    tokens_per_second: float | None = None
    """Of all its trials."""
    seconds_left: float | None = None
    """Of the sweep."""

    def add(self, records: Sequence[TrialRecord]) -> None:
        """Trials that have ended."""
        for record in records:
            self.ended[record.status] += 1
            if self.best is None or _loss(record) < _loss(self.best):
                self.best = record if record.result else self.best


def _loss(record: TrialRecord) -> float:
    return record.result.validation_loss_nats if record.result else math.inf


def sweep_lines(state: SweepState) -> tuple[str, str]:
    """The whole sweep, and the pack at hand."""
    counts = [f"{state.ended[Status.completed]}/{state.trials} trials done"]
    counts += [
        f"{state.ended[status]} {status.replace('_', ' ')}"
        for status in Status
        if status is not Status.completed and state.ended[status]
    ]
    if state.running:
        counts.append(f"{state.running} running")
    if state.best is not None and state.best.result is not None:
        # The hash would not fit; the trial's own line has it.
        name = state.best.trial.rpartition("-")[0]
        counts.append(f"best {state.best.result.validation_loss_nats:.4f} {name}")
    pack = _phase(state) if state.running else []
    if state.seconds_left:
        pack.append(f"about {duration(state.seconds_left)} left")
    return ", ".join(counts), ", ".join(pack)


def _phase(state: SweepState) -> list[str]:
    now = state.phase
    if now is None:
        return ["loading"]
    if isinstance(now, ValidationReport):
        more = now.validated < now.trials
        return [f"validating {now.validated + 1}/{now.trials}" if more else "finishing"]
    words = [f"training, step {now.step}/{now.steps}"]
    # A trial that diverged leaves the others as they are.
    losses_nats = [loss for loss in now.losses_nats if math.isfinite(loss)]
    if losses_nats:
        words.append(f"loss {sum(losses_nats) / len(losses_nats):.3f}")
    if state.tokens_per_second is not None:
        words.append(f"{state.tokens_per_second:,.0f} tokens/s")
    return words


def sentence(record: TrialRecord) -> str:
    """How a trial ended."""
    if record.result is None:
        return f"{record.trial}: {record.status}, {record.reason}"
    result = record.result
    count = result.trials_at_once
    together = f" ({count} at once)" if count > 1 else ""
    return (
        f"{record.trial}: validation loss {result.validation_loss_nats:.4f} nats, "
        f"{result.trainable_parameters:,} trainable, {result.train_seconds:.1f} s{together}"
    )


def duration(seconds: float) -> str:
    """50 s, 12 min, 3 h 20 min: no more digits than a guess deserves."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class SweepProgress:
    """Tells of one sweep as it goes. It says nothing before the first pack starts."""

    def __init__(self, trials: int) -> None:
        self.state = SweepState(trials)
        self._clock = SweepClock(trials)
        self._terminal = sys.stderr.isatty()
        self._interval = TERMINAL_INTERVAL_SECONDS if self._terminal else LINE_INTERVAL_SECONDS
        self._shown = -math.inf
        self._lines_on_screen = 0

    def add_known(self, records: Sequence[TrialRecord]) -> None:
        """Trials that are there already."""
        self.state.add(records)
        self._clock.leave_out(len(records))

    def start_pack(self, trials: int) -> None:
        """A child begins to load what `trials` trials need."""
        self._clock.start_pack(trials, time.monotonic())
        self.state.running, self.state.phase = trials, None
        self._show(at_once=self._terminal)

    def report(self, phase: StepReport | ValidationReport) -> None:
        """The pack at hand is so far."""
        changed = type(phase) is not type(self.state.phase)
        self.state.phase = phase
        self._clock.report(phase, time.monotonic())
        self._show(at_once=changed and self._terminal)

    def end_pack(self, records: Sequence[TrialRecord], lost: int = 0) -> None:
        """Trials have ended with these records, and `lost` ones without; others of the pack are
        tried again."""
        self._clock.end_pack(len(records) + lost, time.monotonic())
        self.state.running, self.state.phase = 0, None
        self.state.add(records)
        self.state.ended[Status.failed] += lost
        self.clear()
        for record in records:
            print(sentence(record), flush=True)
        if records:
            print("; ".join(self._lines(time.monotonic())), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for other words."""
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
        self.state.tokens_per_second = self._clock.tokens_per_second
        self.state.seconds_left = self._clock.seconds_left(now)
        return [line for line in sweep_lines(self.state) if line]


def _columns() -> int:
    try:
        # A terminal that does not know its size says 0.
        return os.get_terminal_size(sys.stderr.fileno()).columns or DEFAULT_COLUMNS
    except OSError:
        return DEFAULT_COLUMNS
