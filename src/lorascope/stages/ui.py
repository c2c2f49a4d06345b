"""ui: MLflow's pages, on this machine only, and gone with this process."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from lorascope.config import Config
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.stages.publish import publish_all
from lorascope.tracking import TrackingError, page_addresses, require_database, ui_command

HOST = "127.0.0.1"
DEFAULT_PORT = 5000
LAST_PORT = 65535
END_SECONDS = 10
"""For the server to end by itself."""


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> int:
    """Serve the pages on the port that `overrides` name as port=5001, until interrupted or asked to
    end.

    Raises:
        ConfigError: the port is not one, or nothing can listen there.
        TrackingError: the store is a server, which has its own pages, or cannot be made.
    """
    port = DEFAULT_PORT
    for argument in overrides:
        key, equals, value = argument.partition("=")
        if key != "port" or not equals:
            raise ConfigError(
                "ui", argument, "it takes a port only", "Run `lorascope ui port=5001`."
            )
        if not value.isdecimal() or not 1 <= int(value) <= LAST_PORT:
            raise ConfigError("port", value, "no port", f"Give a number from 1 to {LAST_PORT}.")
        port = int(value)
    served = ui_command(layout, port)
    _require_free(port)
    # The server would make one that is there while it is made, which is of no use.
    require_database(layout)
    # A group of its own: MLflow starts the server that serves as yet another process.
    server = subprocess.Popen(served, start_new_session=True)
    try:
        # The server starts meanwhile.
        _fill(layout)
        _tell_addresses(layout, f"http://{HOST}:{port}")
        return server.wait()
    finally:
        # However this process is told to end, short of being killed.
        _end(server)


def _fill(layout: Layout) -> None:
    """Publish what the store lacks: what is shown is what there is."""
    try:
        _, damaged = publish_all(layout)
        for reason in damaged:
            print(f"skipped: {reason}", file=sys.stderr)
    except TrackingError as error:
        print(f"warning: the pages may lack what is newest: {error}", file=sys.stderr)


def _tell_addresses(layout: Layout, server: str) -> None:
    print(f"MLflow's pages: {server} (Ctrl-C ends them)", flush=True)
    for name, address in page_addresses(layout, server):
        print(f"  {name}: {address}", flush=True)


def _require_free(port: int) -> None:
    """Bind it as the server will, which would tell the system's error number among many lines."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            free = port + 1 if taken and port < LAST_PORT else DEFAULT_PORT + 1
            raise ConfigError(
                "port", port,
                "another program listens there, perhaps another `lorascope ui`"
                if taken else os.strerror(error.errno or 0),
                f"Take another one: `lorascope ui port={free}`.",
            ) from error  # fmt: skip


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(END_SECONDS)
