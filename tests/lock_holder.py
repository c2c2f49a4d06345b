"""Another process that trains a trial: it holds the lock, and has a scratch folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorascope.files.layout import Layout
from tests.conftest import REPOSITORY

HOLDER = """\
import sys, time
from pathlib import Path
from lorascope.files.layout import Layout
from lorascope.files.replacing import replaced_folder
from lorascope.files.locks import locked_folder
target = Path(sys.argv[2])
with locked_folder(target, Layout(Path(sys.argv[1]))), replaced_folder(target) as scratch:
    (scratch / "half").write_bytes(bytes(1000))
    print(scratch, flush=True)
    time.sleep(600)
"""


@contextmanager
def another_holder(target: Path, layout: Layout) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """The scratch folder for `target` and the process, which is killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(layout.root), str(target)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            scratch = Path(process.stdout.readline().strip())
            assert scratch.is_dir()
            yield scratch, process
        finally:
            process.kill()
