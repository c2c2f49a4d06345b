"""Weights & Biases: one offline run a trial, which `wandb sync` uploads where somebody wants it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lorascope.errors import ConfigError
from lorascope.files.replacing import replaced_folder
from lorascope.tracking.exported import ExportedRun


def write_wandb(runs: Sequence[ExportedRun], folder: Path) -> Path:
    """Write each run below `folder`, which it replaces; nothing leaves this machine. Returns the
    folder.

    Raises:
        ConfigError: wandb is not installed.
    """
    if find_spec("wandb") is None:
        raise ConfigError(
            "to", "wandb", "wandb, which writes its run files, is not installed",
            "Run `pip install 'lorascope[wandb]'`.",
        )  # fmt: skip
    import wandb

    with replaced_folder(folder) as scratch:
        for run in runs:
            _write(run, scratch)
        # Its service writes to the files for a while after a run is finished.
        wandb.teardown()
    return folder


def _write(run: ExportedRun, folder: Path) -> None:
    import wandb

    settings = wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True)
    logged = wandb.init(
        project=run.experiment.replace("/", "-"), name=run.name, config=run.params,
        dir=str(folder), mode="offline", reinit="create_new", settings=settings,
    )  # fmt: skip
    steps: dict[int, dict[str, float]] = {}
    for name, value, step in sorted(run.points, key=lambda point: point.step):
        steps.setdefault(step, {})[name] = value
    for step, values in steps.items():
        logged.log(values, step=step)
    logged.finish()
