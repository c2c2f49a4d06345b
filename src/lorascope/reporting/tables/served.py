"""What merged models weigh in the modes that they are stored in."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.records import ServedForm, Study
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table, of


@dataclass(frozen=True)
class ServedRow:
    """A form, and the mode whose trials are merged into it."""

    quant: str
    form: ServedForm
    models: int
    """Trials that were scored in it."""
    layers_clipped: float | None
    """Layers' inputs that calibration cut off, per cent; None where nothing is calibrated."""


def served_table(study: Study) -> Table[ServedRow]:
    """A row a form; all trials of a mode weigh the same in it, unless their heads are untied."""
    found: dict[tuple[str, str, int], list[ServedForm]] = {}
    for record in study.evaluations:
        if (form := record.served) is not None:
            found.setdefault((record.quant, form.name, form.total_bytes), []).append(form)
    rows = [
        ServedRow(quant, forms[0], len(forms), _clipped(forms))
        for (quant, _, _), forms in found.items()
    ]
    return Table(
        (
            Column("quant", "Mode", right=False),
            Column("served", "Served", right=False, get=of("form", "name")),
            Column("models", "Trials", units.count),
            Column("total_bytes", "Total", units.size, get=of("form", "total_bytes")),
            Column("file_bytes", "In files", units.size, get=of("form", "file_bytes")),
            Column("bits_measured", "Bits measured", units.bits,
                   get=of("form", "bits_per_quantized_parameter")),
            Column("codes", "Codes", right=False, get=_codes),
            Column("clipped", "Inputs clipped %", units.small_percent,
                   get=lambda row: row.layers_clipped),
        ),
        rows,
    )  # fmt: skip


def _codes(row: ServedRow) -> str | None:
    """How they were chosen, and how many layers it left out; None of a mode without a choice."""
    own = row.form.rounding
    if own is None:
        return None
    left = len(own.rounded_to_nearest)
    return own.rounding + (f", {left} of {own.layers} layers nearest" if left else "")


def _clipped(forms: list[ServedForm]) -> float | None:
    """Mean over trials, per cent."""
    shares = [100 * form.calibration.clipped_share for form in forms if form.calibration]
    return sum(shares) / len(shares) if shares else None
