"""The engines that there are."""

from __future__ import annotations

from lorascope.config import Config, EngineKind
from lorascope.execution.engine import Engine
from lorascope.execution.local.slots import LocalEngine
from lorascope.files.layout import Layout


def engine_of(config: Config, layout: Layout) -> Engine:
    """Where the packs of a sweep are trained; nothing is started yet.

    Raises:
        ConfigError: what the engine needs is not here.
    """
    if config.engine.kind is EngineKind.slurm:
        from lorascope.execution.slurm.jobs import SlurmEngine

        return SlurmEngine(config, layout)
    if config.engine.kind is EngineKind.ray:
        from lorascope.execution.ray.jobs import RayEngine

        return RayEngine(config, layout)
    return LocalEngine(config.runtime)
