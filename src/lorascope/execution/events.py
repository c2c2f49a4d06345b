"""What a job tells of while it runs: lines of a file, and whether it should stop."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorascope.records import LossPoint, ValidationPoint
from lorascope.training.progress import StepReport, ValidationReport

EVENTS, STOP = "events.jsonl", "stop"
"""Files of a job's folder."""
EVENT_SECONDS = 0.05
"""Between two events that add nothing to a log."""

Event = StepReport | ValidationReport


class EventWriter:
    """Tells whoever follows how far a job is, and hears whether it should stop."""

    def __init__(self, folder: Path) -> None:
        self._stop = folder / STOP
        self._file = os.open(folder / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._written = 0.0

    def __call__(self, event: Event) -> bool:
        """Whether the pack should be saved now, and its training stop."""
        now = time.monotonic()
        told = not isinstance(event, StepReport) or event.points or event.validations
        if told or now - self._written >= EVENT_SECONDS:
            self._written = now
            os.write(self._file, json.dumps(asdict(event)).encode() + b"\n")
        return self._stop.exists()


class EventReader:
    """Follows the events of the job of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._read_bytes = 0

    def hand_over(self, on_event: Callable[[Event], None]) -> None:
        """What was written since the last call; a line that is being written waits."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._read_bytes)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            values = json.loads(line)
            on_event(_step_report(values) if "step" in values else ValidationReport(**values))


def _step_report(values: dict[str, Any]) -> StepReport:
    """Of JSON; without a library, as there is one for each step."""
    points = [LossPoint(**own) if own else None for own in values.pop("points")]
    validations = [ValidationPoint(**own) if own else None for own in values.pop("validations")]
    return StepReport(**values, points=points, validations=validations)
