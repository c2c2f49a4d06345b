"""Writes all reports of a study. The same study gives the same bytes, wherever and whenever."""

from __future__ import annotations

from pathlib import Path

from lorascope.records import Study
from lorascope.reporting.accuracy_table import accuracy_rows, accuracy_table
from lorascope.reporting.figures import accuracy_by_memory, accuracy_by_rank
from lorascope.reporting.metrics import losses_csv, metrics_json
from lorascope.reporting.mode_memory_table import mode_memory_rows, mode_memory_table
from lorascope.reporting.page import page
from lorascope.reporting.parameter_table import parameter_rows, parameter_table
from lorascope.reporting.summary import REPORT
from lorascope.reporting.trial_memory_table import trial_memory_rows, trial_memory_table
from lorascope.store import write_atomically


def write_reports(study: Study, folder: Path) -> list[Path]:
    """Write every report into `folder`; files that would not change are left alone.

    Returns:
        All reports, changed or not, in a fixed order.
    """
    paths = []
    for name, content in report_files(study).items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)
        paths.append(path)
    return paths


def report_files(study: Study) -> dict[str, bytes]:
    """File name -> content."""
    rows = accuracy_rows(study)
    accuracy, parameters = accuracy_table(rows), parameter_table(parameter_rows(study))
    stored = mode_memory_table(mode_memory_rows(study))
    running = trial_memory_table(trial_memory_rows(study))
    texts = {
        "trainable_parameters.csv": parameters.csv(),
        "trainable_parameters.md": f"# Trainable parameters\n\n{parameters.markdown()}",
        "accuracy.csv": accuracy.csv(),
        "accuracy.md": f"# Accuracy\n\n{accuracy.markdown()}",
        "memory.csv": stored.csv(),
        "memory_by_trial.csv": running.csv(),
        "memory.md": f"# Stored base by mode\n\n{stored.markdown()}\n"
        f"# Trials while running\n\n{running.markdown()}",
        "metrics.json": metrics_json(study, rows),
        "losses.csv": losses_csv(study),
        REPORT: page(study, rows),
    }
    return {
        **{name: text.encode() for name, text in texts.items()},
        "accuracy_by_rank.svg": accuracy_by_rank(study, rows),
        "accuracy_by_memory.svg": accuracy_by_memory(study, rows),
    }
