"""One-sided tests of an estimate against a limit."""

from __future__ import annotations

from abc import ABC, abstractmethod


class OneSided(ABC):
    """An estimate with a known tail. Non-inferiority by a margin is p_not_below(-margin) where more
    is better, p_not_above(margin) where less is."""

    @abstractmethod
    def tail_beyond(self, limit: float, side: int) -> float:
        """Chance of an estimate as far on `side` (1 above, -1 below) of `limit` if that is true."""

    def p_not_below(self, limit: float) -> float:
        """One-sided p against "truth <= limit": small shows that the truth is above `limit`."""
        return self.tail_beyond(limit, 1)

    def p_not_above(self, limit: float) -> float:
        """One-sided p against "truth >= limit": small shows that the truth is below `limit`."""
        return self.tail_beyond(limit, -1)
