"""Accuracy against trainable parameters, by method, as figure 2 of the LoRA paper has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import FuncFormatter

from lorascope.adapters.kinds import method_of
from lorascope.comparing.results import CellKey
from lorascope.comparing.ruling import Findings
from lorascope.config import APART
from lorascope.records import Study
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.by_rank import draw_levels, score_label
from lorascope.reporting.figures.chart import Chart
from lorascope.reporting.figures.curves import far_words, read_off
from lorascope.reporting.figures.style import LINES, MARKERS, PALETTE, PAPER, bars, blank_figure


@dataclass(frozen=True)
class MethodPoint:
    """One configuration: accuracy in per cent, or completion loss in nats."""

    cell: CellKey
    parameters: int
    """Trainable ones."""
    mean: float
    low: float
    """Lower end of the 95 % interval over test items and seeds."""
    high: float
    words: tuple[str, ...]
    """What is to be read off, as the tables write it."""


def method_points(study: Study, findings: Findings) -> dict[tuple[str, str], list[MethodPoint]]:
    """Label of a method and mode -> its configurations, by rising parameters."""
    trained = {t.trial: t.result.trainable_parameters for t in study.trials if t.result is not None}
    measure, found = findings.measure, dict[tuple[str, str], list[MethodPoint]]()
    for score in findings.cells:
        counts = [trained[trial.trial] for trial in score.trials if trial.trial in trained]
        estimate = score.test(measure)
        if counts and estimate is not None:
            low, high = (measure.scale * end for end in estimate.ends)
            mean, words = measure.scale * estimate.value, read_off(estimate, measure)
            point = MethodPoint(score.cell, counts[0], mean, low, high, words)
            form = "" if score.cell.serve == APART else f", served {score.cell.serve}"
            key = method_of(score.cell.method).label, f"{score.cell.quant}{form}"
            found.setdefault(key, []).append(point)
    return {key: sorted(points, key=lambda p: p.parameters) for key, points in found.items()}


def draw_by_method(study: Study, findings: Findings) -> Chart:
    """Colour and marker say the method, the line the mode."""
    figure = blank_figure(4.8)
    axes = figure.add_subplot()
    axes.set_ylabel(score_label(findings.measure))
    axes.set_xscale("log")
    axes.set_xlabel("Trainable parameters")
    # matplotlib's own powers of ten are formulas, which the page's SVG does not set.
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    drawn, names = method_points(study, findings), CellNames.of(findings)
    methods = list(dict.fromkeys(method for method, _ in drawn))
    modes = list(dict.fromkeys(quant for _, quant in drawn))
    for (method, quant), points in drawn.items():
        index, mode = methods.index(method), modes.index(quant)
        color, x = PALETTE[index % len(PALETTE)], [point.parameters for point in points]
        label = method if len(modes) == 1 else f"{method}, {quant}"
        artists = axes.plot(
            x, [point.mean for point in points], MARKERS[index % len(MARKERS)], color=color,
            linestyle=LINES[mode % len(LINES)], linewidth=1.2, markersize=5.5,
            mfc=PAPER if index >= len(PALETTE) else color, zorder=3,
            label=label,
        )  # fmt: skip
        artists += axes.plot(
            *bars(x, [(p.low, p.high) for p in points]), color=color, linewidth=1.1, zorder=2
        )
        for point in points:
            place = point.parameters
            figure.mark(
                axes, (place, point.mean), names.name(point.cell), *point.words,
                f"{place:,} trainable parameters", series=label, cell=point.cell,
            )  # fmt: skip
        figure.belongs(artists, label)
    draw_levels(axes, findings, {}, figure, _ends(drawn))
    figure.legend(loc="outside right upper")
    return figure


def _ends(drawn: Mapping[tuple[str, str], Sequence[MethodPoint]]) -> list[float]:
    """Both ends of every interval."""
    return [end for points in drawn.values() for point in points for end in (point.low, point.high)]


def method_words(study: Study, findings: Findings) -> tuple[str, str, str] | None:
    """Title, description and caption; None where all configurations are of one method."""
    drawn, measure = method_points(study, findings), findings.measure
    if len({method for method, _ in drawn}) < 2:
        return None
    values = []
    for (method, quant), points in drawn.items():
        shown = [f"{p.parameters:,} {measure.score(p.mean / measure.scale)}" for p in points]
        values.append(f"{method}, {quant}: {', '.join(shown)}")
    return (
        f"Test {measure.words} against trainable parameters, by method",
        f"{measure.unit} with 95 % intervals. {'; '.join(values)}.",
        f"{far_words(findings, _ends(drawn))}"
        "Bars are 95 % intervals over test items and seeds. Colour and marker are the method's, "
        "the line is the mode's and joins one method's configurations. Each was trained at the "
        "learning rate in the table below: another may suit it better.",
    )
