"""How fast a sweep goes and when it ends, from what its packs took so far."""

from __future__ import annotations

from lorascope.pack_progress import StepReport, ValidationReport

FEWEST_STEPS = 3
"""Before so many steps of a pack nothing is concluded from them."""


class SweepClock:
    """Times are in seconds of one clock."""

    def __init__(self, trials: int) -> None:
        self._left = trials
        """Not ended yet, those at hand included."""
        self._ended = 0
        self._ended_seconds = 0.0
        self._running = 0
        self._started = 0.0
        self._first: tuple[StepReport, float] | None = None
        self._last: tuple[StepReport, float] | None = None
        self._tokens_a_step: float | None = None

    def start_pack(self, trials: int, now: float) -> None:
        """So many trials are started at once."""
        self._running, self._started = trials, now
        self._first = self._last = self._tokens_a_step = None

    def report(self, phase: StepReport | ValidationReport, now: float) -> None:
        """The pack at hand is so far."""
        if not isinstance(phase, StepReport):
            return
        if self._first is None or self._last is None:
            self._first = (phase, now)
        elif phase.tokens > self._last[0].tokens:
            # This step was logged, so that the tokens are those of all steps up to it.
            self._tokens_a_step = phase.tokens / phase.step
        self._last = (phase, now)

    def end_pack(self, trials: int, now: float) -> None:
        """So many of them have ended; the others are tried again."""
        self._ended += trials
        self._left -= trials
        self._ended_seconds += now - self._started
        self._running = 0

    def leave_out(self, trials: int) -> None:
        """So many are there without having been trained here."""
        self._left -= trials

    @property
    def tokens_per_second(self) -> float | None:
        """Of all trials of the pack at hand, since it started or went on; None until known."""
        seconds = self._step_seconds()
        return self._tokens_a_step / seconds if self._tokens_a_step and seconds else None

    def seconds_left(self, now: float) -> float | None:
        """None until a pack has ended or got far enough."""
        pack = self._pack_seconds()
        if self._ended:
            each = self._ended_seconds / self._ended
        elif pack is not None:
            each = pack / self._running
        else:
            return None
        at_hand = pack if pack is not None else each * self._running
        gone = now - self._started if self._running else 0.0
        return max(0.0, at_hand - gone) + each * (self._left - self._running)

    def _pack_seconds(self) -> float | None:
        """What the pack at hand takes until its last step, at the speed of its steps so far."""
        seconds = self._step_seconds()
        if seconds is None or self._last is None:
            return None
        report, now = self._last
        return now - self._started + seconds * (report.steps - report.step)

    def _step_seconds(self) -> float | None:
        if not self._running or self._first is None or self._last is None:
            return None
        (first, then), (last, now) = self._first, self._last
        steps = last.step - first.step
        return (now - then) / steps if steps >= FEWEST_STEPS else None
