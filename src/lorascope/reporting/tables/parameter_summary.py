"""The short form of the parameter table: a row a rank, a column a model."""

from __future__ import annotations

from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.tables.parameters import ParameterRow, parameter_rows


def parameter_summary(study: Study) -> str:
    """Markdown: for each kind of adapter a table, and beside it the classroom rule."""
    rows = parameter_rows(study)
    kinds = dict.fromkeys((row.targets, row.dora) for row in rows)
    tables = [
        f"On {targets}{' with DoRA' if dora else ''}, in brackets per cent of the base:\n\n"
        + _grid([row for row in rows if (row.targets, row.dora) == (targets, dora)])
        for targets, dora in kinds
    ]
    return (
        "\n".join(tables)
        + "\nThe classroom rule 2 r sqrt(N) is no adapter's count; it stands beside the exact one "
        "in [trainable_parameters.md](trainable_parameters.md), with bytes.\n"
    )


def _grid(rows: list[ParameterRow]) -> str:
    models = list(dict.fromkeys(row.model for row in rows))
    cells = {(row.rank, row.model): _cell(row) for row in rows}
    ranks = sorted({row.rank for row in rows})
    body = [[str(rank), *(cells.get((rank, model), "") for model in models)] for rank in ranks]
    widths = [max(map(len, column)) for column in zip(["Rank", *models], *body, strict=True)]
    rule = ["-" * (width - 1) + ":" for width in widths]
    lines = [["Rank", *models], rule, *body]
    return "".join(
        "| " + " | ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) + " |\n"
        for line in lines
    )


def _cell(row: ParameterRow) -> str:
    share = units.small_percent(row.percent_of_base)
    return f"{units.count(row.trainable_parameters)} ({share})"
