"""`python -m benchmarks.gpu_check`: measure one CUDA device, offline, and write reports/gpu/."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

# Set before the libraries read it: nothing here needs the hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

from benchmarks.gpu_check.page import told
from benchmarks.gpu_check.records import MODES, SHAPES, Effort
from benchmarks.gpu_check.run import growing_checks, write_check
from benchmarks.origin import REPOSITORY
from lorascope.bases.known_configs import known_config, known_config_names
from lorascope.config import DeviceKind
from lorascope.machine.devices import choose_device
from lorascope.machine.libraries import quiet_libraries


def arguments() -> argparse.Namespace:
    """The command line."""
    modes = [quant.name for quant in MODES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=known_config_names(), default=list(SHAPES))
    parser.add_argument("--modes", nargs="+", choices=modes, default=modes)
    parser.add_argument("--seconds", type=float, default=Effort.deadline_seconds)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "reports" / "gpu")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write, the files anew after each base."""
    given = arguments()
    if not torch.cuda.is_available():
        print("gpu-check: torch sees no CUDA device here, so that there is nothing to measure.")
        return
    quiet_libraries()
    configs = {shape: known_config(shape) for shape in given.shapes}
    quants = [quant for quant in MODES if quant.name in given.modes]
    effort = replace(Effort(), deadline_seconds=given.seconds)
    for check in growing_checks(
        configs, quants, choose_device(DeviceKind.cuda), effort,
        on_row=lambda row: print(told(row), flush=True),
    ):  # fmt: skip
        page = write_check(given.output, check)
    print(page.read_text(encoding="utf-8"))
    print(f"{page} and .json beside it: {check.seconds:.0f} s.")


if __name__ == "__main__":
    main()
