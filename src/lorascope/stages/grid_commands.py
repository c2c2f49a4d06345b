"""The commands that look at the whole declared grid."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from lorascope.config import Config
from lorascope.layout import Layout
from lorascope.stages.grid import declared_overrides, expand, with_overrides


def run_grid_command(command: str, overrides: list[str], layout: Layout) -> None:
    """Run `command` over the grid of params.yaml, with `overrides` in place of its axes."""
    configs = expand(layout, with_overrides(declared_overrides(layout), overrides))
    module = import_module(f"lorascope.stages.{command}")
    run: Callable[[list[Config], Layout], object] = module.run
    run(configs, layout)
