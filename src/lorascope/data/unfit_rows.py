"""Rows that cannot be trained on: left out, counted and listed, up to a declared share.

One rule for `check` and `prepare-data`, and for every source: a test file must not lose in silence
what a training file may not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lorascope.config import DataConfig
from lorascope.config.bounds import is_encodable
from lorascope.errors import DataError

SHOWN_ROWS = 10
"""Rows shown in an error, which a person reads in a terminal."""
LISTED_ROWS = 100
"""Places listed in the data card for each reason."""


class RowError(DataError):
    """One row that cannot be trained on."""

    def __init__(self, place: str, reason: str, message: str) -> None:
        super().__init__(place, reason, message)
        self.place = place
        """File and line, or hub split and row."""
        self.reason = reason
        """A few words to count it by, without the row's own values."""
        self.message = message
        """Fault of this row, and what to do about it."""

    def __str__(self) -> str:
        # Names of columns come as they are; half a surrogate pair among them could not be printed.
        return f"{self.place}: {self.message}".encode(errors="backslashreplace").decode()


def require_characters(place: str, *texts: str | None) -> None:
    """Raise RowError where a text holds half of a surrogate pair: JSON can write it as \\ud800, but
    it is no character, and no file or tokenizer can take it."""
    for text in texts:
        if text is not None and not is_encodable(text):
            raise RowError(
                place, "half of a surrogate pair",
                f"{text[:60]!r} holds half of a surrogate pair, which is not a character: one "
                "beyond U+FFFF was cut in two. Export the source again, or remove this row.",
            )  # fmt: skip


@dataclass
class UnfitRows:
    """The unfit rows found so far, by source: the key in the config that names it."""

    config: DataConfig
    rows_read: dict[str, int]
    """Source (train, validation, test) -> rows."""
    found: dict[str, list[RowError]] = field(default_factory=dict)

    def add(self, source: str, error: RowError) -> None:
        """Note one row of a source."""
        self.found.setdefault(source, []).append(error)

    def require_few(self, all_read: bool = True) -> None:
        """Raise DataError where a source has more unfit rows than data.max_dropped_fraction allows;
        before all rows are read, ten are enough to stop for."""
        for source, errors in self.found.items():
            # A share such as 0.29 of 100 rows must be 29 in spite of binary fractions.
            allowed = int(round(self.config.max_dropped_fraction * self.rows_read[source], 6))
            if len(errors) > allowed and (all_read or len(errors) >= SHOWN_ROWS):
                raise DataError(self._too_many(source, allowed, "" if all_read else "at least "))

    def _too_many(self, source: str, allowed: int, least: str) -> str:
        errors, rows = self.found[source], self.rows_read[source]
        reasons = by_count(Counter(error.reason for error in errors))
        where = getattr(self.config, source, None)
        return (
            f"data.{source}={where!r}: {least}{len(errors)} of {rows} rows cannot be trained on "
            f"({reasons}), and data.max_dropped_fraction={self.config.max_dropped_fraction:g} lets "
            f"{allowed} be left out:\n  {first_faults(errors)}\nRepair them, choose the "
            "data.format that fits them, or raise data.max_dropped_fraction."
        )

    def counts(self) -> Counter[str]:
        """Reason -> rows, over all sources."""
        return Counter(error.reason for errors in self.found.values() for error in errors)

    def places(self) -> dict[str, list[str]]:
        """Reason -> places of its first rows."""
        places: dict[str, list[str]] = {}
        for errors in self.found.values():
            for error in errors:
                listed = places.setdefault(error.reason, [])
                if len(listed) < LISTED_ROWS:
                    listed.append(error.place)
        return dict(sorted(places.items()))

    def warnings(self) -> list[str]:
        """One sentence for each source that lost rows."""
        return [
            f"{source}: {len(errors)} of {self.rows_read[source]} rows cannot be trained on and "
            f"were left out ({by_count(Counter(e.reason for e in errors))}); the first: "
            f"{errors[0]}"
            for source, errors in self.found.items()
        ]


def first_faults(faults: Sequence[object]) -> str:
    """The first faults, one a line, and the number of others."""
    lines = [str(fault) for fault in faults[:SHOWN_ROWS]]
    others = len(faults) - SHOWN_ROWS
    return "\n  ".join([*lines, f"and {others} more"] if others > 0 else lines)


def by_count(counts: Counter[str]) -> str:
    """Keys with their counts, the most frequent first."""
    return ", ".join(f"{key}: {rows}" for key, rows in counts.most_common())
