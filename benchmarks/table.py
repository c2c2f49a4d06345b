"""The rows of a benchmark, and their files: what was reached beside its goal, missed ones too."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from benchmarks.measure import Ratios

CSV_NAME, MARKDOWN_NAME = "benchmark.csv", "benchmark.md"
AT_LEAST, AT_MOST = "at least", "at most"
REACHED, MISSED, FAILED, NO_GOAL = "reached", "missed", "failed", "no goal"


@dataclass(frozen=True)
class Row:
    """One measured comparison. Text fields are empty and numbers None where nothing is known."""

    name: str
    """Of the function that measured it, and what is compared."""
    compares: str
    bound: str
    """AT_LEAST or AT_MOST."""
    goal: float | None
    """None where a number is only told."""
    unit: str
    """`x` for a ratio, else the unit of an absolute value, which says so."""
    value: float | None = None
    """Median over the rounds."""
    lowest: float | None = None
    highest: float | None = None
    runs: int = 0
    """Rounds, that is measured pairs."""
    workload: str = ""
    threads: str = ""
    note: str = ""
    reason: str = ""
    """Why the goal is missed where it is, as far as that was found; told only then. What the row
    measures of its own parts stands in `note`."""
    failure: str = ""
    git_commit: str = ""
    processor: str = ""
    versions: str = ""

    @property
    def verdict(self) -> str:
        """REACHED, MISSED or FAILED, by the median; NO_GOAL where nothing was to be reached."""
        if self.failure or self.value is None:
            return FAILED
        if self.goal is None:
            return NO_GOAL
        reached = self.value >= self.goal if self.bound == AT_LEAST else self.value <= self.goal
        return REACHED if reached else MISSED


def measured(row: Row, values: Ratios) -> Row:
    """`row` with what was measured."""
    return replace(
        row, value=values.middle, lowest=values.lowest, highest=values.highest,
        runs=len(values.values),
    )  # fmt: skip


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """Write both files, each atomically."""
    from lorascope.files.replacing import write_atomically

    write_atomically(folder / CSV_NAME, as_csv(rows).encode())
    write_atomically(folder / MARKDOWN_NAME, as_markdown(rows).encode())


def kept_rows(folder: Path, new: Sequence[Row]) -> list[Row]:
    """Rows of a former run that `new` does not replace and that are of the same machine and
    versions. Each names its commit, which may be another: all rows take hours."""
    path = folder / CSV_NAME
    if not new or not path.is_file():
        return []
    former = path.read_text(encoding="utf-8")
    if former.splitlines()[:1] != as_csv([]).splitlines():
        # Other columns, so of other code.
        return []
    replaced = {row.name.partition(":")[0] for row in new}
    same = (new[0].processor, new[0].versions)
    return [
        row
        for row in read_csv(former)
        if row.name.partition(":")[0] not in replaced and (row.processor, row.versions) == same
    ]


def as_csv(rows: Sequence[Row]) -> str:
    """One line a row, its verdict included."""
    stream = io.StringIO()
    names = [field.name for field in fields(Row)]
    writer = csv.DictWriter(stream, [*names, "verdict"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**asdict(row), "verdict": row.verdict})
    return stream.getvalue()


def read_csv(text: str) -> list[Row]:
    """What `as_csv` wrote."""
    return [_row(values) for values in csv.DictReader(io.StringIO(text))]


def _row(values: dict[str, str]) -> Row:
    def number(name: str) -> float | None:
        return float(values[name]) if values[name] else None

    texts = {field.name: values[field.name] for field in fields(Row) if field.type in ("str", str)}
    return Row(
        **texts, goal=number("goal"), runs=int(values["runs"]), value=number("value"),
        lowest=number("lowest"), highest=number("highest"),
    )  # fmt: skip


def as_markdown(rows: Sequence[Row]) -> str:
    """The page: what was reached, then how it was measured."""
    counts = [f"{verdict} {sum(r.verdict == verdict for r in rows)}" for verdict in VERDICTS]
    lines = [
        "# Benchmark", "",
        "Written by `make bench`. A ratio is the median over rounds in which the two sides ran in "
        "turns (A B A B); lowest and highest are single rounds. Seconds are of this machine alone, "
        "and on a shared one they mean little.", "",
        "Goals: " + ", ".join(counts) + ".", "",
        "| Row | Compared | Goal | Reached | Lowest to highest | Rounds | Verdict |",
        "|---|---|---:|---:|---:|---:|---|",
        *(_line(row) for row in rows), "",
        "## How it was measured", "",
        *(_details(row) for row in rows), "",
        *_provenance(rows),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


VERDICTS = (REACHED, MISSED, FAILED)
PLAIN = (REACHED, NO_GOAL)


def _line(row: Row) -> str:
    sign = "≥" if row.bound == AT_LEAST else "≤"
    spread = "" if row.value is None else f"{_number(row.lowest)} to {_number(row.highest)}"
    reached = "" if row.value is None else f"{_number(row.value)} {row.unit}"
    verdict = row.verdict if row.verdict in PLAIN else f"**{row.verdict}**"
    goal = "" if row.goal is None else f"{sign} {_number(row.goal)} {row.unit}"
    cells = (
        row.name, row.compares, goal, reached, spread, str(row.runs), verdict,
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _details(row: Row) -> str:
    missed = row.reason and row.verdict == MISSED and f"Missed, as far as found: {row.reason}"
    failed = row.failure and f"Failed: {row.failure}"
    parts = (row.workload, row.threads, row.note, missed, failed)
    return f"- **{row.name}**: " + " ".join(f"{part.strip()}" for part in parts if part)


def _provenance(rows: Sequence[Row]) -> list[str]:
    """Commit, processor and versions, said once where they are the same for all rows; else with the
    rows of each."""
    told: dict[str, dict[str, None]] = {}
    for row in rows:
        made = f"commit {row.git_commit}; {row.processor}; {row.versions}."
        told.setdefault(made, {})[row.name.partition(":")[0]] = None
    if len(told) == 1:
        return [made[0].upper() + made[1:] for made in told]
    return [f"- {', '.join(names)}: {made}" for made, names in told.items()]


def _number(value: float | None) -> str:
    """Three digits that count, no exponent but for what is nearly nothing."""
    if value is None:
        return ""
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return f"{value:.1e}"
