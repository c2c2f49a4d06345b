"""The tracking store: its address, its lock, and its failures in one line."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lorascope.errors import LorascopeError
from lorascope.files.confidential import credentials_of, hidden_in, public_address, without_secrets
from lorascope.files.layout import Layout

LOCK_SECONDS = 120
"""The longest wait for other publishers; each holds the lock for a second or two."""
TURN_SECONDS = 0.1
"""For other writers, who look for the lock every 0.05 s."""
DATABASE_SECONDS = 5
MAX_REASON = 300
SQLITE = "sqlite:///"

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The defaults wait for a silent server for several minutes, at each call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # Pages need no job runner, which is a second process.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Variables that mlflow reads when it is imported; what the user has set wins."""


class TrackingError(LorascopeError):
    """A tracking store that cannot be reached or written."""


def store_uri(layout: Layout) -> str:
    """MLFLOW_TRACKING_URI where it is set, else the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or project_database(layout)


def project_database(layout: Layout) -> str:
    """The database in the project: absolute, so that it is the same from every folder."""
    return f"{SQLITE}{layout.root.resolve() / 'mlflow.db'}"


def configure_environment() -> None:
    """Set the variables that mlflow reads when it is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def prepare_in_background(layout: Layout) -> None:
    """Begin to import mlflow and to make the project's database, which takes seconds, while the
    caller does or awaits other things. A failure shows where mlflow is used."""

    def prepare() -> None:
        with suppress(Exception):
            import mlflow.tracking  # noqa: F401

            with locked(layout):
                make_database(layout)

    configure_environment()
    # Whoever is interrupted need not wait for it.
    threading.Thread(target=prepare, daemon=True).start()


def require_database(layout: Layout) -> None:
    """Make the project's own database where it is not there, as `make_database` does; without
    loading mlflow where it is.

    Raises:
        TrackingError: it cannot be made.
    """
    if not Path(project_database(layout).removeprefix(SQLITE)).exists():
        configure_environment()
        with failures_as_tracking_errors(layout), locked(layout):
            make_database(layout)


def make_database(layout: Layout) -> None:
    """Make the project's own database where it is used and not there, as a whole or not at all: a
    half-made one is of no use, and MLflow does not mend it. Call it while holding `locked`."""
    uri = project_database(layout)
    path = Path(uri.removeprefix(SQLITE))
    if store_uri(layout) != uri or path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = layout.private / f"{path.name}.new"
    unfinished.unlink(missing_ok=True)
    # SQLite itself would withhold what the umask allows.
    unfinished.touch()
    where = f"{SQLITE}{unfinished.resolve()}"
    check_database(where)
    store = SqlAlchemyStore(where, artifact_root(layout, uri))
    store.engine.dispose()
    os.replace(unfinished, path)


def artifact_root(layout: Layout, uri: str) -> str | None:
    """An absolute folder for a database that we open ourselves; a server knows its own."""
    if uri.startswith(("http://", "https://", "databricks", "uc:")):
        return None
    return (layout.root.resolve() / "mlartifacts").as_uri()


def check_database(uri: str) -> None:
    """Raise at once for a SQLite file that cannot be written.

    mlflow itself tries ten times, for minutes, before it says that it could not open one.
    """
    path = uri.removeprefix(SQLITE)
    if path == uri or not path or ":memory:" in path or "?" in path:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=DATABASE_SECONDS)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.rollback()


@contextmanager
def locked(layout: Layout, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock that lets one publisher of a project work at a time; filelock's Timeout where
    others hold it for longer than `seconds`.

    A fresh database must be migrated once only, two publishers that both find a trial missing
    would both add it, and SQLite serves one writer faster than many.
    """
    layout.private.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.private / "tracking.lock", timeout=seconds):
        yield


@contextmanager
def failures_as_tracking_errors(layout: Layout) -> Iterator[None]:
    """Turn a store's failures into a TrackingError of one line that a record may keep."""
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except Timeout as error:
        raise TrackingError(f"other publishers held the store for {LOCK_SECONDS} s") from error
    except (
        MlflowException,
        SQLAlchemyError,
        CommandError,
        sqlite3.Error,
        OSError,
        ImportError,
    ) as error:
        reason = presentable(f"{store_uri(layout)}: {_first_line(error)}", layout)
        raise TrackingError(reason[:MAX_REASON]) from error


def _first_line(error: Exception) -> str:
    """The first line of the system's own error ('Connection refused'), else of mlflow's."""
    root: BaseException = error
    while (below := root.__cause__ or root.__context__) is not None:
        root = below
    source = root if isinstance(root, sqlite3.Error | OSError) else error
    return (str(source).strip() or type(source).__name__).splitlines()[0]


def presentable(text: str, layout: Layout) -> str:
    """Text for records, which go to Git: without folders of this machine, with the public part of
    addresses only, and without the store's credentials, however a message quotes them."""
    address = store_uri(layout)
    text = text.replace(address.rstrip("/"), public_address(address.rstrip("/")))
    text = text.replace(f"{layout.root.resolve()}/", "")
    secrets = set() if address == project_database(layout) else credentials_of(address)
    return hidden_in(without_secrets(text), secrets)
