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

    @property
    def scored_seeds(self) -> int:
        """Seeds that have a test score."""
        return sum(trial.test is not None for trial in self.score.trials)


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
            Column("seeds", "Seeds", get=lambda row: row.scored_seeds),
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
        Column(f"{name}_p_holm", "Holm p", units.p_value, get=of(lambda one: one.p_holm)),
        Column(f"{name}_verdict", "Verdict", lambda verdict: WORDS[verdict], right=False,
               get=of(lambda one: one.verdict)),
    )  # fmt: skip


def _cost(cost: Cost) -> Callable[[WayRow], float | None]:
    return lambda row: row.score.costs.get(cost)


def way_sentences(findings: Findings, measure: Measure) -> list[str]:
    """What holds for each mode and adapter: what other ways gain on merging and storing afterwards,
    and what each loses against the reference mode's adapter."""
    ways, sentences = ways_by(findings, measure), []
    against: dict[str, Callable[[ServedWay], Comparison | None]] = {
        "against merging and storing afterwards": lambda own: own.against_afterwards,
        "against the reference mode's adapter": lambda own: own.against_reference,
    }
    for group, mode in dict.fromkeys((own.group, own.mode) for own in ways):
        members = [own for own in ways if (own.group, own.mode) == (group, mode)]
        for words, read in against.items():
            said = [
                f"{_named(own, members)} {_said(one, measure)}"
                for own in members
                if (one := read(own)) is not None
            ]
            if said:
                sentences.append(f"{_adapter(group, findings)}{mode}, {words}: {'; '.join(said)}.")
    return sentences


def _adapter(group: int, findings: Findings) -> str:
    """The settings that a group's ways share, where the study has several groups: 'rank 4: '."""
    ways = findings.ways
    if len({own.group for own in ways}) < 2:
        return ""
    own = next(own for own in ways if own.group == group and own.way is not Way.through)
    names = CellNames.of(findings).adapter(own.cell.apart)
    return f"{', '.join([own.cell.size(), *names])}: "


def _named(own: ServedWay, members: Sequence[ServedWay]) -> str:
    """Its way, with the mode that it was trained on where another of the mode has the same way."""
    alike = [one for one in members if one.way is own.way]
    return own.way.value if len(alike) == 1 else f"{own.way.value} (trained on {own.cell.quant})"


def _said(one: Comparison, measure: Measure) -> str:
    """+5.2 points (2.0 to 8.4, p 0.003), better."""
    ends, value = one.difference.ends, measure.difference(one.difference.value)
    return (
        f"{value} {measure.step} ({measure.difference_interval(ends)}, p "
        f"{units.p_value(one.p_holm)}), {WORDS[one.verdict]}"
    )
