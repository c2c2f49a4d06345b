"""Bytes of training, where a formula is exact; the rest is traced (`planning.trace`).

With the batch, the adapter and all but the number of layers given, a peak inside one segment of a
training step is affine in the number of layers, since equal layers keep equal tensors. The same
holds for the number of samples and, up to the switch of operations inside a segment, for the rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GIGABYTE = 10**9
GPU_SIZES_GB = (8, 12, 16, 24, 40, 48, 80, 96, 141)
"""Memory sizes of GPUs on sale: RTX 3070, 3060, 4060 Ti, 4090, A100, L40S, H100, H20 and H200."""
CUDA_BLOCK_BYTES = 512
"""torch's CUDA allocator hands out multiples of it (`kMinBlockSize`)."""
CUBLAS_WORKSPACE_BYTES = 2 * (4 * 2048 + 8 * 16) * 1024
"""cuBLAS's default workspace :4096:2:16:8 for the forward and the backward thread; on Hopper
32 MiB each."""
CUDA_CONTEXT_BYTES = 600 * 10**6
"""Memory that a process takes of a GPU beside tensors: its context, and the code of torch's,
cuBLAS's and a quantizer's kernels once they are loaded. An allowance: 0.3 to 0.6 GB are usual."""
UNUSABLE_SHARE = 0.05
"""Share of a GPU's memory for fragments between the allocator's blocks, other processes and the
screen. An allowance too."""

Affine = tuple[float, float]
"""(value at 0, slope)"""


def usable_bytes(total_bytes: float, device: str) -> int:
    """Memory of a device that tensors can have; a CPU needs no allowance."""
    if device != "cuda":
        return int(total_bytes)
    return max(0, int((1 - UNUSABLE_SHARE) * total_bytes - CUDA_CONTEXT_BYTES))


def affine_through(first: tuple[int, int], second: tuple[int, int]) -> Affine:
    """The line through two points (x, y) with different x."""
    (x1, y1), (x2, y2) = first, second
    slope = (y2 - y1) / (x2 - x1)
    return y1 - slope * x1, slope


def lines_through(
    at_first: Mapping[str, int], at_second: Mapping[str, int], first: int, second: int
) -> dict[str, Affine]:
    """The line of every value that both points have."""
    return {
        name: affine_through((first, at_first[name]), (second, at_second[name]))
        for name in at_first.keys() & at_second.keys()
    }


def extrapolated(
    at_first: Mapping[str, int], at_second: Mapping[str, int], first: int, second: int, target: int
) -> dict[str, int]:
    """Every value that both points have, continued as a line to `target`."""
    lines = lines_through(at_first, at_second, first, second)
    return {name: round(start + slope * target) for name, (start, slope) in lines.items()}


def layer_period(layer_types: Sequence[str], layers: int) -> int:
    """The smallest period of the layers' kinds; 1 where all are alike or nothing is said."""
    if not layer_types:
        return 1
    for period in range(1, layers):
        if all(layer_types[i] == layer_types[i - period] for i in range(period, layers)):
            return period
    return layers


def opening_and_period(layer_types: Sequence[str]) -> tuple[int, int]:
    """Number of layers before the kinds come again and again, such as dense ones before those with
    experts, and their period then; the fewest layers together."""
    layers = len(layer_types)
    found = [(start, layer_period(layer_types[start:], layers - start)) for start in range(layers)]
    return min(found, key=lambda pair: (sum(pair), pair))


@dataclass(frozen=True)
class Excerpts:
    """Two shallow models to continue to the whole one from: layers by their number, and the number
    of layers at the start after which kinds come again."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    period: int


def excerpts(kinds: Sequence[str], layers: int, alike: bool) -> Excerpts | None:
    """The first and the last layers of a model, and one period more of them.

    None where the model itself is hardly deeper.

    Args:
        kinds: of each layer; empty where nothing is said.
        alike: layers of all kinds keep equal tensors, so that one of each kind will do.
    """
    last = layers - 1
    if alike or not kinds:
        firsts = {kind: layer for layer, kind in reversed(list(enumerate(kinds)))} or {"": 0}
        first = (*sorted(firsts.values()), last)
        found = Excerpts(first, (*first, last), period=1)
    else:
        opening, period = opening_and_period(kinds)
        group = opening + period
        depth = 2 * group + (layers - 2 * group) % period
        found = Excerpts(tuple(range(depth)), tuple(range(depth + period)), group)
    return found if len(found.second) < layers else None


def largest_within(segments: Mapping[str, Affine], limit: float) -> int | None:
    """The largest whole x with every line at or under `limit`; None where no line ever rises."""
    bounds = []
    for start, slope in segments.values():
        if slope > 0:
            bounds.append((limit - start) / slope)
        elif start > limit:
            return 0
    return max(0, int(min(bounds) + 1e-9)) if bounds else None


def block_bytes(device: str) -> int:
    """An allocator hands out multiples of it."""
    return CUDA_BLOCK_BYTES if device == "cuda" else 1
