"""Numbers as people read them. None, the unknown, is left blank."""

from __future__ import annotations

import math
from collections.abc import Iterable

BYTE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
"""Decimal: 1 GB is 10^9 bytes."""
MOST_CONFIDENT = 0.999999
"""Above it no digits are told."""


def byte_unit(largest: float) -> tuple[float, str]:
    """The unit in which `largest` is 1 or more, as (bytes, name)."""
    return next((unit for unit in BYTE_UNITS if largest >= unit[0]), BYTE_UNITS[-1])


def size(count: float) -> str:
    """Bytes with three significant digits: 13.5 GB, 512 B."""
    scale, name = byte_unit(count)
    if name == "B":
        return f"{count:.0f} B"
    value = count / scale
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {name}"


def count(number: float) -> str:
    """A whole number with thousands separators: 19,988,480."""
    return f"{number:,.0f}"


def percent(share: float) -> str:
    """A share of 1 as per cent with one decimal."""
    return f"{100 * share:.1f}"


def small_percent(per_cent: float) -> str:
    """Per cent with three significant digits, of whatever size: 0.297, 19.0, 557, 1,114."""
    if per_cent <= 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(per_cent)))
    return f"{per_cent:,.{digits}f}"


def nats(value: float) -> str:
    """A loss."""
    return f"{value:.4f}"


def ratio(value: float) -> str:
    """A relative error."""
    return f"{value:.4f}"


def number(value: float) -> str:
    """A plain number, without a tail of zeros: 16, 0.5."""
    return f"{value:g}"


def bits(value: float) -> str:
    """Bits a parameter."""
    return f"{value:.3f}"


def seconds(value: float) -> str:
    """A duration in seconds: 22.6, and with three digits where it is short, 0.0589."""
    return f"{value:.1f}" if value == 0 or value >= 10 else f"{value:#.3g}"


def hours(value: float) -> str:
    """A longer duration, roughly: 50 s, 12 min, 3.4 h."""
    if value < 0.025:
        return f"{3600 * value:.0f} s"
    return f"{60 * value:.0f} min" if value < 1.5 else f"{value:,.1f} h"


def amount(value: float, unit: str) -> str:
    """A cost with its unit, where it has one: 1.41 MB, 11.6 s, 0.64 Wh."""
    if unit == "bytes":
        return size(value)
    return f"{seconds(value) if unit == 's' else f'{value:.4g}'} {unit}".rstrip()


def yes_no(value: bool) -> str:
    """A truth value."""
    return "yes" if value else "no"


def short_hash(digest: str) -> str:
    """The first 12 hex digits."""
    return digest[:12]


def listed(values: Iterable[object], between: str = ", ") -> str:
    """Distinct values in the order of their first appearance."""
    return between.join(str(value) for value in dict.fromkeys(values)) or "none"


def p_value(value: float) -> str:
    """Three decimals are more than such a number bears."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def confidence(levels: Iterable[float]) -> str:
    """Of one interval or of several, with the digits that tell it from 100 %: 99.2 %, or 97.5 to
    99.98 %."""
    return f"{' to '.join(dict.fromkeys(map(_confidence, _span(levels))))} %"


def _confidence(level: float) -> str:
    if level > MOST_CONFIDENT:
        return f"more than {100 * MOST_CONFIDENT:.4f}"
    return f"{100 * level:.{max(1, math.ceil(-math.log10(1 - level)) - 2)}f}"


def _span(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    return min(found), max(found)


def share(value: float) -> str:
    """A probability as per cent: never 0 or 100 unless it is."""
    if 0 < value < 0.01:
        return "< 1"
    if 0.99 < value < 1:
        return "> 99"
    return f"{100 * value:.0f}"
