"""Grids: what a scale and a zero point make of a range.

A code q stands for scale x (q - zero point). Symmetric codes are signed and have zero as zero
point: the scale is the largest magnitude by half the number of steps, so that the largest weight
may be cut by half a step. Asymmetric codes begin at 0 and cover the range from the smallest to the
largest weight, zero included (Jacob et al. 2017, arXiv 1712.05877). Codes that are 8-bit floats
stand for scale x float, the largest magnitude being the largest float (Micikevicius et al. 2022,
arXiv 2209.05433).

>>> Grid(bits=8, symmetric=False).constants(0, 1000)
(3.9215686274509802, 0)
>>> Grid(bits=8, symmetric=False).constants(-20, 1000)
(4.0, 5)
>>> Grid(bits=8, symmetric=False).code(250, 0, 1000)
64
>>> Grid(bits=8, symmetric=False).code(-20, -20, 1000)
0
"""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.config import Storage


@dataclass(frozen=True)
class Grid:
    """Codes of one width, and the weights that share a scale."""

    bits: int
    symmetric: bool
    group_size: int | None = None
    """Weights of an output row that share a scale; None is the whole row."""
    floating: bool = False
    """Whether codes are 8-bit floats (e4m3) and no whole numbers: `code` and `constants` are not
    for them."""

    @property
    def lowest(self) -> int:
        """The smallest code; of floats the smallest of their bytes."""
        return -(1 << self.bits - 1) if self.symmetric and not self.floating else 0

    @property
    def highest(self) -> int:
        """The largest code."""
        return self.lowest + (1 << self.bits) - 1

    def constants(self, smallest: float, largest: float) -> tuple[float, int]:
        """Scale and zero point for values from `smallest` to `largest`, of which one is not 0."""
        smallest, largest = min(smallest, 0), max(largest, 0)
        steps = self.highest - self.lowest
        if self.symmetric:
            return max(-smallest, largest) / (steps / 2), 0
        scale = (largest - smallest) / steps
        return scale, min(max(self.lowest - round(smallest / scale), self.lowest), self.highest)

    def code(self, value: float, smallest: float, largest: float) -> int:
        """The code of a value, where values lie from `smallest` to `largest`."""
        scale, zero_point = self.constants(smallest, largest)
        return min(max(round(value / scale) + zero_point, self.lowest), self.highest)


def grid_of(storage: Storage, group_size: int | None) -> Grid:
    """The grid of a storage, such as int4_sym."""
    if storage is Storage.fp8:
        return Grid(8, symmetric=True, group_size=group_size, floating=True)
    width, _, mapping = storage.value.partition("_")
    return Grid(int(width.lstrip("uint")), mapping == "sym", group_size)
