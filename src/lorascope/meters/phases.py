"""Memory of a phase, as the device itself accounts for it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from lorascope.machine.devices import Device
from lorascope.records import PhaseMemory

PEAK_RESET = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


class PhaseMeter:
    """Peaks by phase of this process, against its resident size when the meter was made; of several
    GPUs those of the fullest.

    On Linux the resident peak is reset before each phase; elsewhere it can only grow, so that a
    later phase's peak is at least an earlier one's.
    """

    def __init__(self, device: Device) -> None:
        self._device, self._places = device, device.places or (None,)
        self._start_bytes = psutil.Process().memory_info().rss
        self.phases: dict[str, PhaseMemory] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside the block under `name`."""
        self._reset()
        yield
        self.phases[name] = self._read()

    def _reset(self) -> None:
        if self._device.kind == "cuda":
            for place in self._places:
                torch.cuda.synchronize(place)
                torch.cuda.reset_peak_memory_stats(place)
        elif PEAK_RESET.exists():
            # 5 resets the peak resident size to the present one; a container may forbid it.
            with suppress(OSError):
                PEAK_RESET.write_text("5")

    def _read(self) -> PhaseMemory:
        if self._device.kind == "cuda":
            for place in self._places:
                torch.cuda.synchronize(place)
            return PhaseMemory(
                resident_growth_bytes=None,
                allocated_peak_bytes=max(map(torch.cuda.max_memory_allocated, self._places)),
                reserved_peak_bytes=max(map(torch.cuda.max_memory_reserved, self._places)),
            )
        return PhaseMemory(max(0, resident_peak_bytes() - self._start_bytes), None, None)


def resident_peak_bytes() -> int:
    """The peak resident size of this process since the last reset."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
