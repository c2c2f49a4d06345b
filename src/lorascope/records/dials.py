"""The settings of an adapter method that readers see: in names, tables, axes and tracking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

DialValue = bool | int | float | str
"""Numbers are ordered sizes; a truth value is a switch."""
Dials = Mapping[str, DialValue]
"""Name of a dial -> its value, in the method's order."""


@dataclass(frozen=True)
class Dial:
    """One setting of a method, such as LoRA's rank."""

    name: str
    """Field of the method's configuration, key in records, header in CSV."""
    noun: str
    """Word for sentences and table headers: rank, alpha, rsLoRA."""
    letter: str = ""
    """Letter for folder names and figures: r0064, r 64. Empty where neither shows it."""
    is_axis: bool = False
    """Scores are drawn against it, on a logarithmic scale: the size of the adapter."""
    counts: bool = False
    """Trainable parameters depend on it."""
    times_learning_rate: bool = False
    """Weights move by this times the learning rate, so that the product is what compares."""

    @property
    def header(self) -> str:
        """Header of a table's column."""
        return self.noun[:1].upper() + self.noun[1:] if self.noun.islower() else self.noun

    def words(self, value: DialValue) -> str:
        """rank 64; a switch is named where it is on, as DoRA, and empty where it is off."""
        if isinstance(value, bool):
            return self.noun if value else ""
        return f"{self.noun} {dial_text(value)}"

    def code(self, value: DialValue) -> str:
        """Letter and value for folder names: r0064, a0.5."""
        whole = not isinstance(value, str) and float(value).is_integer()
        return f"{self.letter}{int(value):04d}" if whole else f"{self.letter}{dial_text(value)}"


@dataclass(frozen=True)
class Method:
    """The part of an adapter method that readers see."""

    name: str
    """Spelling of conf/ and records: lora."""
    label: str
    """Spelling of papers: LoRA."""
    dials: tuple[Dial, ...] = ()
    """Dials in the order of names and columns."""
    scale: Callable[[Dials], float] | None = None
    """Factor on the adapter's output; None for a method without such a factor."""

    def dial(self, name: str) -> Dial:
        """The dial `name`; one that only records tell of has its name for words."""
        known = (dial for dial in self.dials if dial.name == name)
        return next(known, Dial(name, name.replace("_", " "), counts=True))


def dial_text(value: DialValue) -> str:
    """A value alone: 64, 0.5, yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
