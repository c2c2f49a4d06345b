"""How many tokens a second a model reads and writes while it is scored."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from lorascope.records import Throughput


class TokenMeter:
    """Counts tokens, padding excluded, and the seconds that the model took for them: its forward
    passes alone, without loading, encoding and what is made of the answers. On a GPU each of them
    ends with values on the host, so that the clock waits for the device."""

    def __init__(self) -> None:
        self._read, self._written = [0.0, 0.0], [0.0, 0.0]

    @contextmanager
    def reading(self, tokens: int) -> Iterator[None]:
        """Time the reading of so many tokens: of prompts and completions, whose losses are asked
        for."""
        started = time.perf_counter()
        yield
        self._add(self._read, tokens, started)

    @contextmanager
    def writing(self) -> Iterator[list[int]]:
        """Time a generation, the reading of its prompts included; whoever generates appends the
        number of tokens that were written."""
        written: list[int] = []
        started = time.perf_counter()
        yield written
        self._add(self._written, sum(written), started)

    @staticmethod
    def _add(counts: list[float], tokens: int, started: float) -> None:
        counts[0] += tokens
        counts[1] += time.perf_counter() - started

    def throughput(self) -> Throughput:
        """All so far."""
        (read, reading), (written, writing) = self._read, self._written
        return Throughput(int(read), reading, int(written), writing)


def written_tokens(rows: Sequence[Sequence[int]], ends: Collection[int]) -> int:
    """Tokens of several generations, each up to the first that ends it, that one included."""
    found = 0
    for row in rows:
        end = next((place for place, token in enumerate(row) if token in ends), len(row) - 1)
        found += end + 1
    return found
