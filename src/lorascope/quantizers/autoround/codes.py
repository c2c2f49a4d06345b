"""A model's weights as codes of a grid, chosen by auto-round on rows of train.

auto-round (0.16) works on the model block by block and leaves each weight at the value of a code,
beside the scale and zero point of its groups. Codes are read off these and stored in layers of
ours: no other package is needed to load them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorascope.config import QuantConfig, Rounding
from lorascope.data.calibration import CalibrationRows
from lorascope.data.tokenization import pad_token_id
from lorascope.errors import DeviceError, ModelError
from lorascope.machine.memory import is_out_of_memory
from lorascope.quantizers.linear_layers import quantizable_layers
from lorascope.quantizers.torchao.codes import Coded, coded, decoded
from lorascope.quantizers.torchao.grid import Grid, grid_of
from lorascope.records import RoundingRecord

BATCH_ROWS = 8
"""Rows of one step of descent, auto-round's default."""
CLOSE = 1e-4
"""Largest difference between a weight and its code's value, in steps of the grid."""


@dataclass(frozen=True)
class ChosenCodes:
    """What auto-round made of a model."""

    codes: dict[str, Coded]
    """By layer."""
    others: dict[str, Tensor]
    """Every parameter that is not quantized: AWQ takes from norms what it gives to weights."""
    record: RoundingRecord

    def put(self, model: nn.Module) -> None:
        """Give them to a model with layers of the same grid."""
        for name, own in self.codes.items():
            layer: Any = model.get_submodule(name)
            layer.hold(own)
        with torch.no_grad():
            for name, value in self.others.items():
                model.get_parameter(name).copy_(value)


def choose_codes(
    model: PreTrainedModel,
    tokenizer: Any,
    rows: CalibrationRows,
    quant: QuantConfig,
    scale_dtype: torch.dtype,
) -> ChosenCodes:
    """The codes of a plain float32 model, which is changed on the way.

    Raises:
        ModelError: auto-round cannot work on the model, or left weights off the grid.
    """
    grid = grid_of(quant.storage, quant.group_size)
    names = list(quantizable_layers(model, quant, "auto-round"))
    tuned = _tuned(model, tokenizer, rows, quant, grid, scale_dtype)
    codes = {name: _codes(name, tuned.get_submodule(name), grid, scale_dtype) for name in names}
    left = [name for name in names if not _is_tuned(tuned.get_submodule(name))]
    weights = {f"{name}.weight" for name in names}
    others = {name: p.detach() for name, p in tuned.named_parameters() if name not in weights}
    record = RoundingRecord(
        rounding=quant.rounding.value,
        library=f"auto-round {version('auto-round')}",
        steps=quant.rounding_steps if quant.rounding is Rounding.auto_round else None,
        rows=len(rows.token_ids),
        tokens=rows.tokens,
        rows_sha256=rows.sha256,
        layers=len(names),
        rounded_to_nearest=left,
    )
    return ChosenCodes(codes, others, record)


def _tuned(
    model: PreTrainedModel,
    tokenizer: Any,
    rows: CalibrationRows,
    quant: QuantConfig,
    grid: Grid,
    scale_dtype: torch.dtype,
) -> nn.Module:
    """`model` as auto-round leaves it.

    A step of descent rounds all weights of a block, whatever it reads, so that it reads several
    rows: padded on the right, and auto-round leaves padding out of its loss. AWQ looks at mean
    inputs, so that it reads rows one by one.
    """
    from auto_round import AutoRound

    descends = quant.rounding is Rounding.auto_round
    own = {"iters": quant.rounding_steps} if descends else {}
    padding = pad_token_id(tokenizer, model.get_input_embeddings().weight.shape[0])
    # What auto-round leaves out of its loss are tokens with this id.
    tokenizer.pad_token_id = padding
    with _quiet(), torch.random.fork_rng():
        try:
            work = AutoRound(
                model,
                tokenizer,
                bits=grid.bits,
                group_size=grid.group_size or -1,
                sym=grid.symmetric,
                scale_dtype=str(scale_dtype).removeprefix("torch."),
                alg_configs=quant.rounding.value,
                dataset=_samples(rows.token_ids, padding if descends else None),
                nsamples=len(rows.token_ids),
                seqlen=1,
                batch_size=BATCH_ROWS if descends else 1,
                device_map=str(model.device),
                amp=False,
                enable_torch_compile=False,
                low_cpu_mem_usage=False,
                **own,
            )
            tuned: nn.Module = work.quantize()[0]
        except Exception as error:  # whatever a library raises that takes a model apart
            if is_out_of_memory(error):
                raise DeviceError(
                    f"quant={quant.name}: memory runs out while auto-round chooses codes "
                    f"({error}). Set calibration_rows lower in its file, or free memory for it."
                ) from error
            raise ModelError(
                f"quant={quant.name}: auto-round cannot work on {type(model).__name__} "
                f"({error}). Serve it in a mode that rounds to the nearest, such as "
                f"{quant.storage}."
            ) from error
    return tuned


def _samples(token_ids: Sequence[Sequence[int]], padding: int | None) -> list[dict[str, Tensor]]:
    """Rows as auto-round takes them; with `padding`, a token's id, all as long as the longest."""
    longest, samples = max(map(len, token_ids)), []
    for own in token_ids:
        filler = [] if padding is None else [padding] * (longest - len(own))
        mask = [1] * len(own) + [0] * len(filler)
        ids = torch.tensor([[*own, *filler]])
        samples.append({"input_ids": ids, "attention_mask": torch.tensor([mask])})
    return samples


def _is_tuned(layer: Any) -> bool:
    """auto-round leaves out layers whose sizes its own export could not pack."""
    return getattr(layer, "scale", None) is not None


def _codes(name: str, layer: Any, grid: Grid, scale_dtype: torch.dtype) -> Coded:
    """The codes whose values a layer's weights [out, in] are; the nearest where it was left out."""
    weight = layer.weight.detach().float()
    if not _is_tuned(layer):
        return coded(weight, grid, scale_dtype)
    scales = layer.scale.detach().view(len(weight), -1)
    wide = _by_weight(scales.float(), weight, grid)
    steps = torch.where(wide == 0, 0.0, weight / wide).round()
    zero_points = None
    if not grid.symmetric:
        zero_points = torch.as_tensor(layer.zp).view_as(scales).to(torch.uint8)
        steps = steps + _by_weight(zero_points.float(), weight, grid)
    codes = steps.to(torch.int8 if grid.symmetric else torch.uint8)
    on = Coded(codes, scales.to(scale_dtype), zero_points)
    _require_on_grid(name, weight, on, wide, grid)
    return on


def _by_weight(constants: Tensor, weight: Tensor, grid: Grid) -> Tensor:
    """[out, groups] -> [out, in]"""
    size = grid.group_size or weight.shape[1]
    return constants.repeat_interleave(size, dim=1)[:, : weight.shape[1]]


def _require_on_grid(name: str, weight: Tensor, on: Coded, steps: Tensor, grid: Grid) -> None:
    values = decoded(on.codes, on.scales, on.zero_points, grid, torch.float32)
    off = ((values - weight).abs() > CLOSE * steps.abs()).sum()
    if off:
        raise ModelError(
            f"{name}: {int(off)} weights that auto-round {version('auto-round')} left are no "
            "values of the grid that it was given. This is a fault of lorascope with this version: "
            "please report it."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """auto-round tells of each layer and draws a bar that belongs in no file. Errors are raised."""
    logger = logging.getLogger("autoround")
    before = logger.level
    logger.setLevel(logging.ERROR)
    elsewhere = nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO())
    try:
        with elsewhere:
            yield
    finally:
        logger.setLevel(before)
