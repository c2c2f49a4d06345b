"""What torch and CUDA are told before their first use, most of it through the environment."""

from __future__ import annotations

import os
from pathlib import Path

from lorascope.config import DeviceKind, RuntimeConfig

GPU_FILES = ("nvidia[0-9]*", "dxg", "kfd")
ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Variables that torch reads its allocator's settings from."""
WORKSPACE, FIXED_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""With this setting cuBLAS gives the same sums each time."""
VISIBLE_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def may_use_cuda(wanted: DeviceKind) -> bool:
    """Whether torch may find CUDA, without importing torch: device files of a driver say so, of
    NVIDIA's, of WSL's or of ROCm's, which torch calls CUDA too."""
    found = any(path for name in GPU_FILES for path in Path("/dev").glob(name))
    return wanted is DeviceKind.cuda or (wanted is DeviceKind.auto and found)


def prepare_environment(runtime: RuntimeConfig) -> None:
    """Set up CUDA's allocator and, where asked for, its determinism, before torch is imported. What
    somebody has set stays.

    Segments that expand leave fewer gaps between the tensors of batches of many lengths.
    """
    if may_use_cuda(runtime.device) and not os.environ.keys() & set(ALLOCATOR_SETTINGS):
        os.environ[ALLOCATOR_SETTINGS[0]] = "expandable_segments:True"
    if runtime.deterministic:
        os.environ.setdefault(WORKSPACE, FIXED_WORKSPACE)


def use_determinism(wanted: bool) -> None:
    """Hold torch to algorithms that give the same bits each time, so that it raises where it has
    none; or to nothing."""
    import torch

    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cudnn.benchmark = False


def hide_gpus() -> None:
    """Let this process, and whatever it starts, see no GPU."""
    os.environ.update(dict.fromkeys(VISIBLE_DEVICES, ""))
