"""Training loss by step: a panel a mode, a line a trial, stronger the higher its rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lorascope.comparing.cells import variants
from lorascope.comparing.results import CellKey, cell_of
from lorascope.comparing.ruling import Findings
from lorascope.records import Study, TrialRecord
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.chart import Chart
from lorascope.reporting.figures.style import blank_figure, mode_colors
from lorascope.reporting.tables.accuracy import trial_order

FAINTEST = 0.35
"""Opacity of the smallest adapters."""
MOST_NAMES = 12
"""Names that stand beside a panel's lines; among more none could be read."""
PANEL_COLUMNS = 2
PANEL_INCHES = 2.3
LEGEND_ROOM = 0.4
LOSS_AT_STEP = "training loss {y} nats at step {x}"
"""What the page says at a point of a curve."""
HALF_STEP_NATS = 0.00005
"""Half of the last digit that is told of a loss."""
NUDGE_NATS = 0.000002
"""More than six digits of a place in the drawing leave open of a loss."""


def draw_losses(study: Study, findings: Findings) -> Chart:
    """Every trial that logged a loss."""
    by_mode = {
        quant: sorted(
            (t for t in study.trials if t.key.quant == quant and t.result), key=trial_order
        )
        for quant in mode_colors(findings)
    }
    modes = [quant for quant, trials in by_mode.items() if trials]
    rows = max(1, -(-len(modes) // PANEL_COLUMNS))
    figure = blank_figure(PANEL_INCHES * rows + LEGEND_ROOM)
    figure.along = LOSS_AT_STEP
    columns = min(PANEL_COLUMNS, max(1, len(modes)))
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    cells = _cells(study)
    names = _line_names(cells, findings)
    sizes = sorted({_size(t) for trials in by_mode.values() for t in trials})
    for axes, quant in zip(panels, modes, strict=False):
        lines = _draw_mode(axes, by_mode[quant], sizes, mode_colors(findings)[quant], figure)
        _say_ends(axes, lines, by_mode[quant], cells, CellNames.of(findings), figure)
        _name_lines(axes, by_mode[quant], names, figure)
        axes.margins(x=0.02)
        axes.set_title(quant)
    for axes in panels[len(modes) :]:
        axes.set_axis_off()
    figure.supxlabel("Step", fontsize=10)
    figure.supylabel("Training loss, nats", fontsize=10)
    return figure


def _draw_mode(
    axes: Axes, trials: Sequence[TrialRecord], sizes: Sequence[float], color: str, figure: Chart
) -> dict[str, Line2D]:
    """The lines by trial, of those that logged a loss."""
    lines = {}
    for trial in trials:
        points = trial.result.losses if trial.result else []
        if not points:
            continue
        strength = _strength(_size(trial), sizes)
        steps, losses = [p.step for p in points], [readable(p.loss_nats) for p in points]
        marker = "o" if len(points) == 1 else None
        drawn = axes.plot(steps, losses, marker=marker, color=color, alpha=strength, linewidth=1.5)
        figure.belongs(drawn)
        lines[trial.trial] = drawn[0]
    return lines


def readable(loss_nats: float) -> float:
    """The loss as it is drawn: where its last digit hangs by a hair, 2e-6 nats off that, so that
    the page, which reads it back off the drawing, tells what the tables do."""
    told = float(units.nats(loss_nats))
    most = HALF_STEP_NATS - NUDGE_NATS
    gap = loss_nats - told
    return loss_nats if abs(gap) <= most else told + math.copysign(most, gap)


def _cells(study: Study) -> dict[str, CellKey]:
    """Trial -> its configuration."""
    variant = variants(study)
    return {t.trial: cell_of(t.key, variant[t.trial]) for t in study.trials}


def _line_names(cells: Mapping[str, CellKey], findings: Findings) -> dict[str, str]:
    """Trial -> the name of its configuration: all seeds of one have one name."""
    names = CellNames.of(findings)
    return {trial: names.short(cell) for trial, cell in cells.items()}


def _say_ends(
    axes: Axes,
    lines: Mapping[str, Line2D],
    trials: Sequence[TrialRecord],
    cells: Mapping[str, CellKey],
    names: CellNames,
    figure: Chart,
) -> None:
    """The last point that each trial logged, by which the page finds the others of its line."""
    for trial in trials:
        if trial.result and trial.result.losses:
            last, cell = trial.result.losses[-1], cells[trial.trial]
            figure.mark(
                axes, (last.step, last.loss_nats), f"{names.name(cell)}, seed {trial.key.seed}",
                LOSS_AT_STEP.format(x=f"{last.step:,}", y=units.nats(last.loss_nats)),
                cell=cell, curve=lines[trial.trial],
            )  # fmt: skip


def _name_lines(
    axes: Axes, trials: Sequence[TrialRecord], names: Mapping[str, str], figure: Chart
) -> None:
    """r 64 at the right end of its line, pushed apart where lines end together."""
    ends: dict[str, tuple[int, float]] = {}
    for trial in trials:
        if trial.result and trial.result.losses:
            last = trial.result.losses[-1]
            ends.setdefault(names[trial.trial], (last.step, last.loss_nats))
    if len(ends) > MOST_NAMES:
        return
    low, high = axes.get_ylim()
    gap, former = 0.09 * (high - low), -float("inf")
    for name, (step, loss) in sorted(ends.items(), key=lambda end: end[1][1]):
        former = max(loss, former + gap)
        beside = axes.annotate(
            name, (step, former), fontsize=8, xytext=(5, -3), textcoords="offset points",
            annotation_clip=False,
        )  # fmt: skip
        figure.belongs([beside])


def _size(trial: TrialRecord) -> float:
    """Its rank, or what else sizes it; a method without a size comes last."""
    sizes = [float(value) for dial, value in cell_of(trial.key).shown() if dial.is_axis]
    return sizes[0] if sizes else math.inf


def _strength(size: float, sizes: Sequence[float]) -> float:
    if len(sizes) < 2:
        return 1.0
    return round(FAINTEST + (1 - FAINTEST) * sizes.index(size) / (len(sizes) - 1), 3)
