"""inventory: what dvc.yaml of a study outside a clone knows the installed lorascope by."""

from __future__ import annotations

from lorascope.files.layout import Layout
from lorascope.starting.wiring import write_inventory


def command(_: object, layout: Layout, *__: object) -> None:
    """Write experiments/inventory."""
    write_inventory(layout)
