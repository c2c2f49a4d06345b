"""The device of a run and the type that it computes in: chosen by capability, and recorded by
name."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from lorascope.config import DeviceKind
from lorascope.errors import DeviceError

CPU_DESCRIPTION = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
"""Flags of processors, the last one of ARM's."""
TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Device:
    """A device that was found to be there."""

    kind: str
    """cpu or cuda: what torch calls it."""
    name: str
    """Name for people and records."""
    places: tuple[str, ...] = ()
    """Devices, as torch names them, over which the decoder's layers are placed, one after the
    other; none where one has the whole base."""

    @property
    def count(self) -> int:
        """Number of devices that a base lies on."""
        return max(1, len(self.places))


def choose_device(wanted: DeviceKind, places: int = 1) -> Device:
    """The wanted device, or for `auto` CUDA where there is one; DeviceError where CUDA is asked for
    and not there.

    Args:
        places: CUDA devices over which layers are placed, the first ones that are visible.
    """
    if places > 1:
        return _several(places)
    if wanted is DeviceKind.cpu or (wanted is DeviceKind.auto and not torch.cuda.is_available()):
        return Device("cpu", cpu_name())
    if not torch.cuda.is_available():
        raise DeviceError(
            "runtime.device='cuda': torch sees no CUDA device here. "
            "Use runtime.device=auto or cpu, or install a CUDA build of torch."
        )
    return Device("cuda", f"cuda: {torch.cuda.get_device_name(0)}")


def _several(places: int) -> Device:
    count = torch.cuda.device_count()
    if count < places:
        raise DeviceError(
            f"runtime.place={places}: torch sees {count} CUDA device{'' if count == 1 else 's'} "
            "here, and layers are placed over as many. Use a smaller runtime.place, or let "
            "CUDA_VISIBLE_DEVICES name more."
        )
    names = dict.fromkeys(torch.cuda.get_device_name(number) for number in range(places))
    places_by_name = tuple(f"cuda:{number}" for number in range(places))
    return Device("cuda", f"cuda: {', '.join(names)}", places_by_name)


def autocast(
    kind: str, compute: torch.dtype, keep_casts: bool = True
) -> AbstractContextManager[object]:
    """Mixed precision of a forward pass on a kind of device: adapters are kept in FP32, and compute
    in the base's 16 bits. FP32 needs none.

    Args:
        keep_casts: keep what a parameter is cast to until the end of the context.
    """
    if compute is torch.float32:
        return nullcontext()
    return torch.autocast(kind, dtype=compute, cache_enabled=keep_casts)


def compute_type(x: torch.Tensor) -> torch.dtype:
    """The type that products of `x` are computed in: autocast's where it is on. Forward passes of
    autograd functions of our own run under it, backward passes do not."""
    kind = x.device.type
    # torch knows no autocast of meta tensors, and refuses to say so.
    on = not x.is_meta and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else x.dtype


def multiplies_bfloat16(description: Path = CPU_DESCRIPTION) -> bool:
    """Whether the processor has instructions for products of bfloat16, as far as Linux tells."""
    try:
        text = description.read_text(errors="replace")
    except OSError:
        return False
    lines = (line.partition(":") for line in text.splitlines())
    flags = {
        flag
        for key, _, values in lines
        if key.strip() in ("flags", "Features")
        for flag in values.split()
    }
    return not flags.isdisjoint(BFLOAT16_FLAGS)


def cpu_name() -> str:
    """The processor's name, where the system says it; else its architecture."""
    described = CPU_DESCRIPTION.read_text().splitlines() if CPU_DESCRIPTION.is_file() else []
    names = [line.partition(":")[2].strip() for line in described if line.startswith("model name")]
    return f"cpu: {names[0] if names else platform.processor() or platform.machine()}"


def require_attention(attention: str, device: Device) -> None:
    """Raise DeviceError where `attention` cannot run on `device`; `auto` always can."""
    from transformers.utils import is_flash_attn_2_available

    if attention != "flash_attention_2":
        return
    if device.kind != "cuda" or not is_flash_attn_2_available():
        raise DeviceError(
            f"model.attention='flash_attention_2': it needs CUDA and the package flash-attn, and "
            f"this is {device.name}. Use auto or sdpa."
        )


def use_threads(threads: int, processes: int = 1) -> int:
    """Set torch's CPU threads (0 leaves them) and return how many there are; so many processes
    divide them."""
    if processes > 1:
        threads = max(1, (threads or torch.get_num_threads()) // processes)
    if threads > 0:
        torch.set_num_threads(threads)
    return int(torch.get_num_threads())
