"""Progress of long work: one line that is rewritten in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

FIRST_LINE_SECONDS = 2.0
LINE_INTERVAL_SECONDS = 5.0
TERMINAL_INTERVAL_SECONDS = 0.5
BAR_COLUMNS = 12
FORMAT = f"{{desc}}: {{percentage:3.0f}}%|{{bar:{BAR_COLUMNS}}}| {{n_fmt}}/{{total_fmt}}"


class StepProgress:
    """A progress line, called with (steps done, steps in all) and, where there is one, the loss in
    nats. Steps of another unit, or another number of them, are work of another pace, which begins
    where the last one ended."""

    def __init__(self, title: str, unit: str = "steps") -> None:
        self._title = title
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._interval = TERMINAL_INTERVAL_SECONDS if self._terminal else LINE_INTERVAL_SECONDS
        self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        self._last: tuple[int, int] | None = None
        self._started = self._called = now
        self._first: tuple[float, int] | None = None
        # The first line comes earlier: what is over by then needs none.
        self._shown = now - self._interval + min(self._interval, FIRST_LINE_SECONDS)
        self._said_something = False

    def __call__(
        self, done: int, total: int, loss_nats: float | None = None, *, unit: str | None = None
    ) -> None:
        now = time.monotonic()
        before = self._last or (0, total)
        if (unit or self._unit, total) != (self._unit, before[1]) or done < before[0]:
            self._begin(self._called)
        self._unit, self._last, self._called = unit or self._unit, (done, total), now
        if done == 0:
            return
        left = seconds_left(now - self._started, done, total, self._first_after(now, done))
        last = done >= total
        if now - self._shown < self._interval and not (last and self._said_something):
            return
        self._shown = now
        self._said_something = not last
        loss = "" if loss_nats is None else f", loss {loss_nats:.3f}"
        bar = tqdm.format_meter(
            done, total, now - self._started, prefix=self._title, ascii=not self._terminal,
            bar_format=FORMAT,
        )  # fmt: skip
        self._write(f"{bar} {self._unit}{loss}, {duration(left)} left", last)

    def _first_after(self, now: float, done: int) -> tuple[float, int] | None:
        """Seconds until the first step was done, and the steps that were done then."""
        if self._first is None:
            self._first = now - self._started, done
        return self._first

    def _write(self, text: str, last: bool) -> None:
        if self._terminal:
            end = "\n" if last else ""
            print(f"\r\x1b[K{text}", end=end, file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def seconds_left(
    elapsed_seconds: float, done: int, total: int, first: tuple[float, int] | None
) -> float:
    """How long the rest takes at the pace so far, of which the first step, that warms up, counts
    only as long as it is alone.

    Args:
        first: seconds until the first step was done, and the steps that were done then.
    """
    seconds, steps = elapsed_seconds, done
    if first is not None and done > first[1]:
        seconds, steps = elapsed_seconds - first[0], done - first[1]
    return seconds / max(steps, 1) * (total - done)


def duration(seconds: float) -> str:
    """50 s, 12 min, 3 h 20 min: no more digits than a guess deserves."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
