"""Progress of long work: one line that is rewritten in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

LINE_INTERVAL_SECONDS = 5.0
TERMINAL_INTERVAL_SECONDS = 0.5


class StepProgress:
    """A progress line, called with (steps done, steps in all) and, where there is one, the loss in
    nats."""

    def __init__(self, title: str, unit: str = "step") -> None:
        self._title = title
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._interval = TERMINAL_INTERVAL_SECONDS if self._terminal else LINE_INTERVAL_SECONDS
        self._started = self._shown = time.monotonic()
        self._said_something = False

    def __call__(self, done: int, total: int, loss_nats: float | None = None) -> None:
        now = time.monotonic()
        last = done >= total
        if now - self._shown < self._interval and not (last and self._said_something):
            return
        self._shown = now
        self._said_something = not last
        left = (now - self._started) / max(done, 1) * (total - done)
        loss = "" if loss_nats is None else f", loss {loss_nats:.3f}"
        text = f"{self._title}: {self._unit} {done}/{total}{loss}, {left:.0f} s left"
        if self._terminal:
            end = "\n" if last else ""
            print(f"\r\x1b[K{text}", end=end, file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
