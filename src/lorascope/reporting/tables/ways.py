"""Ways to serve in one mode: quantized after training, kept apart, or trained for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorascope.comparing.results import CellScore, Comparison, Measure
from lorascope.comparing.ruling import Findings
from lorascope.comparing.ways import ServedWay, Way
from lorascope.config import Cost
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.tables.comparisons import WORDS
from lorascope.reporting.tables.table import Column, Table

AGAINST = {
    "against_reference": "reference, apart",
    "against_afterwards": "merged, then stored",
    "against_apart": "adapter apart",
}
"""What a way is held against -> header."""


@dataclass(frozen=True)
class WayRow:
    """A way with its scores."""

    served: ServedWay
    score: CellScore
    name: str
    """Of what was trained, where the study has several."""


def ways_table(findings: Findings, measure: Measure) -> Table[WayRow]:
    """One row a way, with differences by `measure`: the study's, or the loss beside it. CSV has
    shares and nats, text points and nats."""
    names, ways = CellNames.of(findings), ways_by(findings, measure)
    rows = [WayRow(own, findings.score(own.cell), names.name(own.cell)) for own in ways]
    return Table(
        (
            Column("mode", "Served in", right=False, get=lambda row: row.served.mode),
            Column("way", "Way", right=False, get=lambda row: row.served.way.value),
            Column("configuration", "Configuration", right=False, get=lambda row: row.name),
            Column("accuracy", "Accuracy %", units.percent,
                   get=lambda row: row.score.accuracy and row.score.accuracy.value),
            Column("completion_loss_nats", "Loss nats", units.nats,
                   get=lambda row: row.score.loss and row.score.loss.value),
            *(column for name in AGAINST for column in _held_against(name, measure)),
            Column("serving_bytes", "Serving", units.size, get=_cost(Cost.serving_bytes)),
            Column("train_seconds", "Train s", units.seconds, get=_cost(Cost.train_seconds)),
            Column("seeds", "Seeds", get=lambda row: len(row.score.trials)),
        ),
        rows,
    )  # fmt: skip


def ways_by(findings: Findings, measure: Measure) -> tuple[ServedWay, ...]:
    """By the study's measure, or by the loss where that is another."""
    return findings.ways if measure is findings.measure else findings.ways_by_loss


def _held_against(name: str, measure: Measure) -> tuple[Column, ...]:
    """Difference, interval and verdict against one other way."""

    def of(read: Callable[[Comparison], object]) -> Callable[[WayRow], object]:
        def get(row: WayRow) -> object:
            comparison: Comparison | None = getattr(row.served, name)
            return None if comparison is None else read(comparison)

        return get

    header = f"− {AGAINST[name]}"
    return (
        Column(f"{name}_difference", f"{header} ({measure.step})", measure.difference,
               get=of(lambda one: one.difference.value)),
        Column(f"{name}_interval", "95 % interval", measure.difference_interval, in_csv=False,
               get=of(lambda one: one.difference.ends)),
        Column(f"{name}_low", "Low", in_text=False, get=of(lambda one: one.difference.low)),
        Column(f"{name}_high", "High", in_text=False, get=of(lambda one: one.difference.high)),
        Column(f"{name}_p_holm", "Holm p", in_text=False, get=of(lambda one: one.p_holm)),
        Column(f"{name}_verdict", "Verdict", lambda verdict: WORDS[verdict], right=False,
               get=of(lambda one: one.verdict)),
    )  # fmt: skip


def _cost(cost: Cost) -> Callable[[WayRow], float | None]:
    return lambda row: row.score.costs.get(cost)


def way_sentences(findings: Findings, measure: Measure) -> list[str]:
    """What holds for each mode: what other ways gain on merging and storing afterwards, and what
    each loses against the reference mode's adapter."""
    ways, sentences = ways_by(findings, measure), []
    against: dict[str, Callable[[ServedWay], Comparison | None]] = {
        f"against {Way.afterwards.value}": lambda own: own.against_afterwards,
        "against the reference mode's adapter": lambda own: own.against_reference,
    }
    for mode in dict.fromkeys(own.mode for own in ways):
        members = [own for own in ways if own.mode == mode]
        for words, read in against.items():
            said = [
                f"{_named(own, members)} {_said(one, measure)}"
                for own in members
                if (one := read(own)) is not None
            ]
            if said:
                sentences.append(f"{mode}, {words}: {'; '.join(said)}.")
    return sentences


def _named(own: ServedWay, members: Sequence[ServedWay]) -> str:
    """Its way, with the mode that it was trained on where another of the mode has the same way."""
    alike = [one for one in members if one.way is own.way]
    return own.way.value if len(alike) == 1 else f"{own.way.value} (trained on {own.cell.quant})"


def _said(one: Comparison, measure: Measure) -> str:
    """+5.2 points (2.0 to 8.4), better."""
    estimate = one.difference
    return (
        f"{measure.difference(estimate.value)} {measure.step} "
        f"({measure.difference_interval((estimate.low, estimate.high))}), {WORDS[one.verdict]}"
    )
