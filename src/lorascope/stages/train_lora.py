"""train-lora: what is missing of a sweep, trained in packs."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.config import Config
from lorascope.execution.sweep import run_sweep
from lorascope.files.layout import Layout


def command(configs: Sequence[Config], layout: Layout, *_: object) -> None:
    """Train the trials that `configs` describe, but for those that are there already."""
    run_sweep(configs, layout)
