"""train-lora: what is missing of a sweep, trained in packs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorascope.config import Config
from lorascope.execution.sweep import run_sweep
from lorascope.files.layout import Layout


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Train the trials that `configs` describe, but for those that are there already."""
    run_sweep(configs, layout)
