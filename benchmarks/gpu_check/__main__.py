"""`python -m benchmarks.gpu_check`: one run on a machine with a GPU, offline, at most 8 minutes.

Tests that take a device, a study held against its CPU records, and the time and memory of steps.
Each result is a line in results.jsonl of the output folder as soon as it is there; page.md sums
them up. --tiny runs the whole on a CPU with tiny shapes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu_check.page import page_of
from benchmarks.gpu_check.steps import REPOSITORY, Check, run_step, steps

DEADLINE_SECONDS = 470.0
"""Eight minutes, less what the last step's end takes."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes on this computer's CPU")
    parser.add_argument(
        "--carried", type=Path, default=REPOSITORY / "gpu-carried",
        help="folder with study, plans and wheels, as `make gpu-carried` fills it",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=REPOSITORY / "reports" / "gpu")
    parser.add_argument("--seconds", type=float, default=DEADLINE_SECONDS)
    return parser.parse_args()


def main() -> None:
    """Run all steps that there is time for, and write the page after each."""
    given = arguments()
    deadline = time.monotonic() + given.seconds
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        carried = Path(scratch) / "carried" if given.tiny else given.carried.absolute()
        device = "cpu" if given.tiny else "cuda"
        check = Check(device, given.tiny, carried, given.output.absolute())
        for former in (check.lines.path, check.log):
            former.unlink(missing_ok=True)
        site = installed(carried / "wheels", Path(scratch) / "site")
        for step in steps(check):
            run_step(step, check, deadline, site)
            if not any(line["kind"] == "start" for line in check.lines.read()):
                print(f"gpu-check: no CUDA device here, or torch does not load: {check.log}")
                print("`python -m benchmarks.gpu_check --tiny` runs the whole on a CPU.")
                return
            write_page(check)
    print(write_page(check).read_text(encoding="utf-8"))


def installed(wheels: Path, site: Path) -> Path | None:
    """The folder in which carried wheels lie installed; None where none were carried."""
    found = sorted(map(str, wheels.glob("*.whl")))
    if not found:
        return None
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-compile", "--target", str(site), *found], check=True)
    return site


def write_page(check: Check) -> Path:
    """Write what is known so far."""
    page = check.output / "page.md"
    page.write_text(page_of(check.lines.read()), encoding="utf-8")
    return page


if __name__ == "__main__":
    main()
