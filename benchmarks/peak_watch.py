"""The largest resident memory of any process of a command, watched from outside.

Linux keeps each process's peak under /proc for as long as it lives (proc(5): `VmHWM`).
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
INTERVAL_SECONDS = 0.05


class PeakWatch:
    """Looks at a command's processes until they have ended."""

    def __init__(self) -> None:
        self._peak_bytes = 0
        self._thread: threading.Thread | None = None

    def start(self, process: int) -> None:
        """Watch in a thread: what `measure.run` calls with the number of the process, which leads a
        session of its own."""
        self._thread = threading.Thread(target=self._watch, args=(process,), daemon=True)
        self._thread.start()

    def peak_bytes(self) -> int:
        """After the command has ended."""
        if self._thread is not None:
            self._thread.join()
        return self._peak_bytes

    def _watch(self, leader: int) -> None:
        while (PROC / str(leader)).exists():
            for status in PROC.glob("[0-9]*/status"):
                # A process may end while it is looked at.
                with suppress(OSError, ProcessLookupError):
                    if _session(status.with_name("stat")) == leader:
                        self._peak_bytes = max(self._peak_bytes, _peak_bytes(status))
            time.sleep(INTERVAL_SECONDS)


def _session(stat: Path) -> int:
    """The sixth field; the second, a name in brackets, may hold spaces."""
    return int(stat.read_text().rpartition(")")[2].split()[3])


def _peak_bytes(status: Path) -> int:
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0
