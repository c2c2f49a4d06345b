"""How fast a sweep goes and when it ends, from what its packs took so far."""

from __future__ import annotations

from lorascope.training.progress import StepReport, ValidationReport

FEWEST_STEPS = 3
"""Before so many steps of a pack nothing is concluded from them."""
AT_ONCE_SECONDS = 0.02
"""Reports that come faster are of steps that were done before somebody listened."""


class RunningPack:
    """A pack that is being trained. Times are in seconds of one clock."""

    def __init__(self, trials: int, now: float) -> None:
        self.trials = trials
        self.started = now
        self.phase: StepReport | ValidationReport | None = None
        """None before its first step is done."""
        self._first: tuple[StepReport, float] | None = None
        self._last: tuple[StepReport, float] | None = None
        self._tokens_a_step: float | None = None

    def report(self, phase: StepReport | ValidationReport, now: float) -> None:
        """The pack is so far."""
        self.phase = phase
        if not isinstance(phase, StepReport):
            return
        if self._first is None or self._last is None:
            self._first = (phase, now)
        elif self._last is self._first and now - self._last[1] < AT_ONCE_SECONDS:
            self._first = self._last = (phase, now)
            return
        elif phase.tokens > self._last[0].tokens:
            # This step was logged, so that the tokens are those of all steps up to it.
            self._tokens_a_step = phase.tokens / phase.step
        self._last = self._first if self._last is None else (phase, now)

    @property
    def tokens_per_second(self) -> float | None:
        """Of all trials of the pack, since it started or went on; None until known."""
        seconds = self._step_seconds()
        return self._tokens_a_step / seconds if self._tokens_a_step and seconds else None

    @property
    def seconds(self) -> float | None:
        """What the pack takes until its last step, at the speed of its steps so far."""
        seconds = self._step_seconds()
        if seconds is None or self._last is None:
            return None
        report, now = self._last
        return now - self.started + seconds * (report.steps - report.step)

    def _step_seconds(self) -> float | None:
        if self._first is None or self._last is None:
            return None
        (first, then), (last, now) = self._first, self._last
        steps = last.step - first.step
        return (now - then) / steps if steps >= FEWEST_STEPS else None


class SweepClock:
    """The packs of a sweep, of which `slots` are trained at the same time."""

    def __init__(self, trials: int, slots: int = 1) -> None:
        self._left = trials
        """Not ended yet, those that run included."""
        self._slots = slots
        self._ended = 0
        self._ended_seconds = 0.0
        self.running: list[RunningPack] = []

    def start_pack(self, trials: int, now: float) -> RunningPack:
        """So many trials are started at once."""
        pack = RunningPack(trials, now)
        self.running.append(pack)
        return pack

    def end_pack(self, pack: RunningPack, trials: int, now: float) -> None:
        """So many of its trials have ended; the others are tried again."""
        self.running.remove(pack)
        self._ended += trials
        self._left -= trials
        self._ended_seconds += now - pack.started

    def leave_out(self, trials: int) -> None:
        """So many are there without having been trained here."""
        self._left -= trials

    @property
    def tokens_per_second(self) -> float | None:
        """Of all packs that run; None until all are known."""
        speeds = [pack.tokens_per_second for pack in self.running]
        known = [speed for speed in speeds if speed is not None]
        return sum(known) if known and len(known) == len(speeds) else None

    def seconds_left(self, now: float) -> float | None:
        """None until a pack has ended, or all that run got far enough."""
        each = self._seconds_a_trial()
        if each is None:
            return None
        rest = [max(0.0, _seconds_of(pack, each) - (now - pack.started)) for pack in self.running]
        waiting = self._left - sum(pack.trials for pack in self.running)
        return max([(sum(rest) + each * waiting) / self._slots, *rest])

    def _seconds_a_trial(self) -> float | None:
        """Seconds of a slot's time that a trial takes."""
        if self._ended:
            return self._ended_seconds / self._ended
        known = [pack.seconds for pack in self.running if pack.seconds is not None]
        if not known or len(known) < len(self.running):
            return None
        return sum(known) / sum(pack.trials for pack in self.running)


def _seconds_of(pack: RunningPack, each: float) -> float:
    return pack.seconds if pack.seconds is not None else each * pack.trials
