"""What the GPU check runs on: device, memory, versions, commit."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.gpu_check.lines import Lines
from benchmarks.origin import commit, versions
from lorascope.config import DeviceKind
from lorascope.machine.devices import choose_device


def main() -> None:
    """Tell it in a line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check.start")
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    given = parser.parse_args()
    device = choose_device(DeviceKind(given.device))
    on_cuda = device.kind == "cuda"
    memory_bytes = torch.cuda.get_device_properties(0).total_memory if on_cuda else 0
    Lines(given.lines).add(
        "start", "start", device=device.name, memory_bytes=memory_bytes,
        cuda=str(torch.version.cuda), commit=commit(), versions=versions(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
