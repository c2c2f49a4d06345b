"""`lorascope ...` in this process, where the libraries are loaded and their fork server runs: for
tests of what a command says and leaves, not of its process."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from types import SimpleNamespace

import pytest

from lorascope import cli
from lorascope.files.layout import Layout


def lorascope(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a process with these arguments, started in the project's folder, would end with."""
    handler = signal.getsignal(signal.SIGTERM)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patched, chdir(layout.root),
        redirect_stdout(out), redirect_stderr(err),
    ):  # fmt: skip
        patched.setattr(sys, "argv", ["lorascope", *arguments])
        # `main` freezes all objects at its end, as its process ends; imports freeze theirs before.
        patched.setattr(cli, "gc", SimpleNamespace(freeze=lambda: None))
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
