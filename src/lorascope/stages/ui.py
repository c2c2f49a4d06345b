"""ui: MLflow's pages, on this machine only."""

from __future__ import annotations

import subprocess

from lorascope.layout import Layout
from lorascope.tracking import ui_command


def run(layout: Layout) -> int:
    """Serve the tracking store until interrupted."""
    return subprocess.call(ui_command(layout))
