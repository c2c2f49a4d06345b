"""TensorBoard's event files, one folder a run, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lorascope.errors import ConfigError
from lorascope.files.replacing import replaced_folder
from lorascope.tracking.exported import ExportedRun


def write_tensorboard(runs: Sequence[ExportedRun], folder: Path) -> Path:
    """Write each run below `folder`, which it replaces; returns it.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError(
            "to", "tensorboard", "tensorboard, which writes its event files, is not installed",
            "Run `pip install 'lorascope[tensorboard]'`.",
        )  # fmt: skip
    with replaced_folder(folder) as scratch:
        for run in runs:
            _write(run, scratch / run.experiment / run.name)
    return folder


def _write(run: ExportedRun, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    with SummaryWriter(str(folder)) as writer:
        for curve in run.curves.values():
            for name, value, step in curve:
                writer.add_scalar(
                    name, value, step, run.end_seconds, new_style=True, double_precision=True
                )
        # Its own `add_hparams` would make another run.
        shown = dict.fromkeys(run.results, 0)
        for summary in hparams(run.params, shown):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)
