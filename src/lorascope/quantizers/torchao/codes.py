"""Weights on a grid: codes and constants by torchao's arithmetic, and codes packed into bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchao.quantization.quant_primitives import (
    MappingType,
    choose_qparams_affine,
    dequantize_affine,
    quantize_affine,
)

from lorascope.quantizers.torchao.grid import Grid

FLOAT8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Coded:
    """A weight [out, in] on a grid."""

    codes: Tensor
    """[out, in], int8 of a symmetric grid, else uint8; of floats their bytes."""
    scales: Tensor
    """[out, groups], in 16 bits or float32."""
    zero_points: Tensor | None
    """[out, groups], uint8; None of a symmetric grid."""


def coded(weight: Tensor, grid: Grid, scale_dtype: torch.dtype) -> Coded:
    """A weight [out, in] on a grid. Scales are rounded to `scale_dtype` before codes are chosen, so
    that these are the best for what is stored. Weights of a last, shorter group have its own
    scale."""
    whole = _whole_groups(weight.detach().float(), grid)
    if grid.floating:
        codes, scales = _floats(whole, grid, scale_dtype)
        return Coded(codes[:, : weight.shape[1]].contiguous(), scales, None)
    block, dtype = _block(whole, grid), _code_dtype(grid)
    scales, zero_points = choose_qparams_affine(
        whole,
        MappingType.SYMMETRIC if grid.symmetric else MappingType.ASYMMETRIC,
        block,
        dtype,
        grid.lowest,
        grid.highest,
        eps=_smallest(scale_dtype),
        scale_dtype=scale_dtype,
        zero_point_dtype=dtype,
        keepdim=True,
    )
    codes = quantize_affine(
        whole, block, scales.float(), zero_points, dtype, grid.lowest, grid.highest
    )
    codes = codes[:, : weight.shape[1]].contiguous()
    return Coded(codes, scales, None if grid.symmetric else zero_points)


def decoded(
    codes: Tensor, scales: Tensor, zero_points: Tensor | None, grid: Grid, dtype: torch.dtype
) -> Tensor:
    """The weight [out, in] that codes stand for, computed in float32 and rounded to `dtype`."""
    whole = _whole_groups(codes, grid)
    if grid.floating:
        floats = whole.view(FLOAT8).float().view(len(whole), scales.shape[1], -1)
        plain = (floats * scales.float()[:, :, None]).view(whole.shape)
        return plain[:, : codes.shape[1]].to(dtype)
    weight: Tensor = dequantize_affine(
        whole,
        _block(whole, grid),
        scales.float(),
        torch.zeros_like(scales, dtype=codes.dtype) if zero_points is None else zero_points,
        _code_dtype(grid),
        grid.lowest,
        grid.highest,
        output_dtype=torch.float32,
    )
    return weight[:, : codes.shape[1]].to(dtype)


def rounded(weight: Tensor, grid: Grid, scale_dtype: torch.dtype) -> Tensor:
    """The weight [out, in] that a grid makes of `weight`, in its type."""
    on = coded(weight, grid, scale_dtype)
    return decoded(on.codes, on.scales, on.zero_points, grid, weight.dtype)


def packed(codes: Tensor, grid: Grid) -> Tensor:
    """Codes [out, in] as bytes [ceil(out x in x bits / 8)]: each byte holds codes of the first,
    second, ... part of the flattened weight, the first in its lowest bits."""
    flat = (codes.flatten().to(torch.int16) - grid.lowest).to(torch.uint8)
    parts = 8 // grid.bits
    size = -(-len(flat) // parts)
    each = functional.pad(flat, (0, size * parts - len(flat))).view(parts, size)
    shifts = torch.arange(parts, dtype=torch.uint8, device=codes.device) * grid.bits
    return (each << shifts[:, None]).sum(0, dtype=torch.uint8)


def unpacked(data: Tensor, grid: Grid, shape: tuple[int, int]) -> Tensor:
    """The codes [out, in] that `packed` made bytes of."""
    parts, mask = 8 // grid.bits, 2**grid.bits - 1
    if parts > 1:
        data = torch.cat([(data >> (grid.bits * part)) & mask for part in range(parts)])
    codes = data[: shape[0] * shape[1]].view(shape)
    # Among bytes, minus 128 and plus 128 are one and the same.
    return (codes + (grid.lowest & 255)).view(torch.int8) if grid.lowest else codes


def _floats(whole: Tensor, grid: Grid, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Bytes of 8-bit floats [out, in] and scales [out, groups] of a matrix of whole groups."""
    groups = whole.view(len(whole), -1, _block(whole, grid)[1])
    limit = torch.finfo(FLOAT8).max
    scales = (groups.abs().amax(2) / limit).clamp(min=_smallest(scale_dtype)).to(scale_dtype)
    # A scale that was rounded down would lead beyond the largest float, which is no number.
    scaled = (groups / scales.float()[:, :, None]).clamp(-limit, limit)
    return scaled.to(FLOAT8).view(torch.uint8).view(whole.shape), scales


def _smallest(dtype: torch.dtype) -> float:
    """The smallest positive scale that a type holds: a group of zeros has a scale too."""
    return torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps


def _whole_groups(matrix: Tensor, grid: Grid) -> Tensor:
    """`matrix` [out, in], its rows filled with zeros up to whole groups: no range grows by that, as
    each contains zero."""
    short = -matrix.shape[1] % _block(matrix, grid)[1]
    return functional.pad(matrix, (0, short)) if short else matrix


def _block(matrix: Tensor, grid: Grid) -> tuple[int, int]:
    """Rows and columns that share a scale; torchao has no groups of a single weight."""
    return 1, max(2, grid.group_size or matrix.shape[1])


def _code_dtype(grid: Grid) -> torch.dtype:
    return torch.int8 if grid.lowest else torch.uint8
