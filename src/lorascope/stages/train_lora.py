"""train-lora: what is missing of a sweep, trained in packs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lorascope.config import Config
from lorascope.config.shard_rules import idle_devices
from lorascope.execution.sweep import run_sweep
from lorascope.files.layout import Layout
from lorascope.study.needed import only_needed


def command(configs: Sequence[Config], layout: Layout, *_: object) -> None:
    """Train the trials that `configs` describe, but for those that are there already."""
    for config in configs:
        # A mode of which nothing is needed has a folder all the same: DVC looks for it.
        layout.trials(config.quant.name).mkdir(parents=True, exist_ok=True)
    for warning in dict.fromkeys(map(idle_devices, configs)):
        if warning is not None:
            print(f"warning: {warning}", file=sys.stderr)
    if trained := only_needed(configs, layout):
        run_sweep(trained, layout)
