"""Results as lines of JSON, each on the disk as soon as it is known."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

Line = dict[str, object]
FILE = "LORASCOPE_GPU_CHECK_LINES"
"""Environment variable that names the file of results to a plugin of pytest."""


@dataclass(frozen=True)
class Lines:
    """A file of results that several processes write in turn."""

    path: Path

    def add(self, step: str, kind: str, **values: object) -> None:
        """Append a result, whole and flushed: a run that is cut keeps what it has told.

        Args:
            kind: of result: start, end, test, trial, base, steps, profile, merge.
        """
        line = {"step": step, "kind": kind, "clock": round(time.time(), 2), **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Line]:
        """All results so far; none where nothing was written."""
        if not self.path.is_file():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
