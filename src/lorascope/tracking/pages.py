"""MLflow's own pages of the local store: the command that serves them, and their addresses."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from lorascope.files.layout import Layout
from lorascope.tracking.connection import (
    SQLITE,
    TrackingError,
    artifact_root,
    configure_environment,
    presentable,
    project_database,
    store_uri,
)

TRAININGS = "workflowType=machine_learning"
"""What an address says to open the pages of trainings: without it they are those of prompts and
traces, whatever the experiment's kind (MLflow 3.17, `useWorkflowType`)."""
BY_ACCURACY = "orderByKey=metrics.%60test_accuracy%60&orderByAsc=false"
"""In the order of their creation MLflow shows parents alone; in another one, every run."""
NEWEST = """
select experiment_id, name, exists (
    select 1 from latest_metrics join runs on runs.run_uuid = latest_metrics.run_uuid
    where runs.experiment_id = experiments.experiment_id and latest_metrics.key = 'test_accuracy'
) from experiments
where lifecycle_stage = 'active' and name != 'Default' order by last_update_time desc limit 3
"""


def ui_command(layout: Layout, port: int = 5000) -> list[str]:
    """The command that serves the local store's pages on this machine only. It finds the store in
    the environment, which is set here: everybody on the machine can read a command line.

    Raises:
        TrackingError: the store is a server, which has its own pages.
    """
    configure_environment()  # the command inherits it
    uri = store_uri(layout)
    root = artifact_root(layout, uri)
    if root is None:
        raise TrackingError(
            f"MLFLOW_TRACKING_URI={presentable(uri, layout)} is a server with its own pages. "
            "Open it in a browser, or unset the variable to see the local store."
        )
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--artifacts-destination", root, "--workers", "1"),
    ]  # fmt: skip


def page_addresses(layout: Layout, server: str) -> list[tuple[str, str]]:
    """Name and address of the experiments that changed last, in the view of trainings; none where
    the store is not the project's own database, or holds none yet."""
    uri = project_database(layout)
    path = Path(uri.removeprefix(SQLITE))
    if store_uri(layout) != uri or not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(path)) as database:
            found = database.execute(NEWEST).fetchall()
    except sqlite3.Error:
        return []
    return [
        (
            name,
            f"{server}/#/experiments/{number}/runs?{TRAININGS}"
            + (f"&{BY_ACCURACY}" if has_accuracy else ""),
        )
        for number, name, has_accuracy in found
    ]
