"""`lorascope ui`: a port that is taken is told, and no server outlives the command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.stages import ui

LORASCOPE = Path(sys.executable).parent / "lorascope"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            ui.command([], Layout(tmp_path), {}, [f"port={port}"])
    told = str(caught.value)
    assert told.startswith(f"port={port}: another program listens there")
    assert "lorascope ui port=" in told
    assert "Errno" not in told


@pytest.mark.parametrize("given", ["port=0", "port=65536", "port=web", "port=", "prot=5001", "-x"])
def test_what_is_no_port_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match=r"port"):
        ui.command([], Layout(tmp_path), {}, [given])


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def until(wanted: bool, port: int, seconds: float = 120.0) -> bool:
    """Whether the port answers, or does not, within a generous time."""
    end = time.monotonic() + seconds
    while answers(port) is not wanted and time.monotonic() < end:
        time.sleep(0.1)
    return answers(port) is wanted


@pytest.mark.slow
def test_a_polite_kill_ends_the_server_too(recorded: Layout) -> None:
    port = free_port()
    with subprocess.Popen(
        [LORASCOPE, "ui", f"port={port}"], cwd=recorded.root, env=dict(os.environ),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert until(True, port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert until(False, port, 5)
