"""What MLflow calls system metrics: load and memory of the processor and of every GPU here."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


class MachineLoad:
    """Samples of MLflow's own monitors, under its names, so that its page of them shows them. A GPU
    is seen where `nvidia-ml-py` is installed."""

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        self._monitors: list[Any] = [CPUMonitor()]
        with suppress(ImportError, RuntimeError):
            self._monitors.append(GPUMonitor())

    def sample(self) -> dict[str, float]:
        """Metric -> value; the processor's load is that since the last sample."""
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return {f"system/{name}": float(value) for name, value in found.items()}
