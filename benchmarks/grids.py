"""`python -m benchmarks.grids BASE`: what grids make of a real base's weights, for the docs.

It writes docs/quantization.svg and the tables of docs/quantization.md and docs/qat.md, between
their marks. BASE is a folder with config.json and safetensors, such as models/tiny/base after
`lorascope prepare-base`.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.origin import REPOSITORY
from lorascope.bases.known_configs import known_config
from lorascope.bases.weights import stored_tensors
from lorascope.config import GROUPED, QuantConfig, Storage
from lorascope.counting.architectures import table_shape
from lorascope.quantizers.bits import linear_bytes, mean_asymptotic_bits
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.quantizers.torchao.codes import coded, rounded
from lorascope.quantizers.torchao.grid import Grid, grid_of
from lorascope.reporting import units
from lorascope.reporting.figures.chart import svg
from lorascope.reporting.figures.style import AXIS, PALETTE, blank_figure, style

TRAINED = REPOSITORY / "docs/qat.md"
WAYS = REPOSITORY / "reports/ptq_against_qat"
WAYS_135M = REPOSITORY / "reports/ptq_against_qat_135m"
PAGE, PICTURE = REPOSITORY / "docs/quantization.md", REPOSITORY / "docs/quantization.svg"
LAYER = "model.layers.1.mlp.down_proj.weight"
DRAWN = (Storage.int4_sym, Storage.uint4_asym, Storage.int2_sym, Storage.uint2_asym)
MODES = (
    QuantConfig("fp16", Storage.float16), QuantConfig("int8", Storage.int8),
    QuantConfig("fp8", Storage.fp8),
    QuantConfig("int8_sym", Storage.int8_sym), QuantConfig("uint8_asym", Storage.uint8_asym),
    QuantConfig("w8a8_dynamic", Storage.w8a8_dynamic),
    QuantConfig("w8a8_static", Storage.w8a8_static),
    QuantConfig("nf4", Storage.nf4), QuantConfig("nf4_dq", Storage.nf4, double_quantization=True),
    QuantConfig("int4_sym", Storage.int4_sym, group_size=32),
    QuantConfig("uint4_asym", Storage.uint4_asym, group_size=32),
    QuantConfig("int2_sym", Storage.int2_sym, group_size=32),
    QuantConfig("uint2_asym", Storage.uint2_asym, group_size=32),
)  # fmt: skip
"""The files of conf/quant, but those that differ in what computes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    base: Path = parser.parse_args().base
    weight = stored_tensors(base)[LAYER].read(LAYER).float()
    row = weight[int(_skew(weight).argmax())]
    with style():
        PICTURE.write_bytes(svg(draw_row(row)))
    for page, name, lines in (
        (PAGE, "bits", bits_table()),
        (PAGE, "errors", error_table(weight)),
        (TRAINED, "ways", ways_table()),
        (TRAINED, "ways of 135m", loss_ways_table()),
    ):
        page.write_text(_replaced(page.read_text(), name, "\n".join(lines)))


def bits_table() -> Iterator[str]:
    """Bits a weight and bytes of Llama-2-7B's linear layers by mode, from shapes alone."""
    matrices = table_shape(known_config("llama-2-7b")).matrices
    yield "| mode | codes | weights a scale | bits a weight | linear layers of Llama-2-7B |"
    yield "|---|---|---|---:|---:|"
    for mode in MODES:
        stored = QUANTIZERS[mode.storage].bits(mode)
        grouped = mode.group_size or ("a row" if stored.weight_bits <= 8 else "")
        size = 64 if stored.block_bytes else grouped
        bits, total = mean_asymptotic_bits(matrices, stored), linear_bytes(matrices, stored)
        yield (
            f"| {mode.name} | {stored.weight_bits} bits | {size} | {bits:.3f} | "
            f"{total / 1e9:.3f} GB |"
        )


def error_table(weight: Tensor) -> Iterator[str]:
    """How far each grid moves one layer's weights, by group."""
    yield "| grid | a row a scale | 128 | 64 | 32 |"
    yield "|---|---:|---:|---:|---:|"
    for storage in GROUPED:
        errors = [relative_error(weight, grid_of(storage, size)) for size in (None, 128, 64, 32)]
        yield f"| {storage} | " + " | ".join(f"{100 * error:.2f} %" for error in errors) + " |"


def ways_table() -> Iterator[str]:
    """What a committed run of recipe=ptq_against_qat found, a row a way."""
    yield (
        "| served in | way | trained on | accuracy % | to the reference | to PTQ | loss | "
        "to the reference | to PTQ | bytes | train s |"
    )
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    by_accuracy, by_loss = (_rows(WAYS / name) for name in ("ways.csv", "ways_by_loss.csv"))
    for right, loss in zip(by_accuracy, by_loss, strict=True):
        accuracy = f"{100 * float(right['accuracy']):.1f}"
        nats = f"{float(loss['completion_loss_nats']):.3f}"
        yield "| " + " | ".join((
            right["mode"], right["way"], right["configuration"].partition(",")[0],
            accuracy, *(_difference(right, other, 100, 1) for other in ("reference", "afterwards")),
            nats, *(_difference(loss, other, 1, 3) for other in ("reference", "afterwards")),
            units.size(float(right["serving_bytes"])), units.seconds(float(right["train_seconds"])),
        )) + " |"  # fmt: skip


def loss_ways_table() -> Iterator[str]:
    """The same of recipe=ptq_against_qat_135m, whose data are scored by loss alone."""
    yield (
        "| served in | way | trained on | loss | to the reference | to PTQ | Holm p | bytes | "
        "train s |"
    )
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|"
    for row in _rows(WAYS_135M / "ways.csv"):
        p = row["against_afterwards_p_holm"]
        yield "| " + " | ".join((
            row["mode"], row["way"], row["configuration"].partition(",")[0],
            f"{float(row['completion_loss_nats']):.3f}",
            *(_difference(row, other, 1, 3) for other in ("reference", "afterwards")),
            units.p_value(float(p)) if p else "",
            units.size(float(row["serving_bytes"])), units.seconds(float(row["train_seconds"])),
        )) + " |"  # fmt: skip


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _difference(row: dict[str, str], other: str, scale: float, digits: int) -> str:
    """-1.1 (-2.3 to 0.0); blank where nothing is compared."""
    names = (f"against_{other}_{part}" for part in ("difference", "low", "high"))
    texts = [row[name] for name in names]
    if not all(texts):
        return ""
    signed = (f"{scale * float(text):+.{digits}f}".replace("-", "−") for text in texts)
    # What rounds to zero has no sign.
    value, low, high = (text if text.strip("+−0.") else text[1:] for text in signed)
    return f"{value} ({low} to {high})"


def relative_error(weight: Tensor, grid: Grid) -> float:
    """Root mean square of the difference, by that of the weight."""
    difference = rounded(weight, grid, torch.float16) - weight
    return float(difference.norm() / weight.norm())


def draw_row(row: Tensor) -> Figure:
    """One output row: where its weights lie, and where a grid has codes for them."""
    figure = blank_figure(height=5.2)
    panels = figure.subplots(2, 2, sharex=True, sharey=True).flatten()
    for axes, storage, color in zip(panels, DRAWN, PALETTE, strict=False):
        _draw_grid(axes, row, storage, color)
    for axes in panels[2:]:
        axes.set_xlabel("Weight")
    for axes in panels[::2]:
        axes.set_ylabel("Weights")
    return figure


def _draw_grid(axes: Axes, row: Tensor, storage: Storage, color: str) -> None:
    grid = grid_of(storage, None)
    on = coded(row[None], grid, torch.float16)
    scale = float(on.scales[0, 0])
    zero_point = 0 if on.zero_points is None else int(on.zero_points[0, 0])
    axes.hist(row.tolist(), bins=48, color=AXIS, label="weights as they were")
    values = [scale * (code - zero_point) for code in range(grid.lowest, grid.highest + 1)]
    counts = [int((on.codes == code).sum()) for code in range(grid.lowest, grid.highest + 1)]
    axes.vlines(values, 0, counts, color=color, linewidth=1.6)
    axes.plot(values, counts, "o", color=color, markersize=3.5)
    axes.set_title(f"{storage}: scale {scale:.4f}, zero point {zero_point}")


def _skew(weight: Tensor) -> Tensor:
    """How much farther each row [out] reaches on one side of zero than on the other."""
    low, high = -weight.amin(1), weight.amax(1)
    return torch.maximum(low, high) / torch.minimum(low, high).clamp(min=1e-6)


def _replaced(text: str, name: str, content: str) -> str:
    """`text` with what stands between the marks of a table exchanged."""
    marks = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
    changed, count = re.subn(marks, rf"\g<1>{content}\n\g<2>", text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"no page has marks for {name}")
    return changed


if __name__ == "__main__":
    main()
