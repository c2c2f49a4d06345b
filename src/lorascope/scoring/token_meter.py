"""How many tokens a second a model reads and writes while it is scored."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from lorascope.records import Throughput

T = TypeVar("T")


class TokenMeter:
    """Counts tokens, padding excluded, and the seconds that the model took for them: its forward
    passes, and what makes a batch for each of them and takes its answers to the host, without
    loading, encoding, progress and what is made of the answers. As values end on the host, the
    clock waits for a GPU."""

    def __init__(self) -> None:
        self._read, self._written = [0.0, 0.0], [0.0, 0.0]

    @contextmanager
    def reading(self, tokens: int) -> Iterator[None]:
        """Time the reading of so many tokens: of prompts and completions, whose losses are asked
        for."""
        started = time.perf_counter()
        yield
        self._add(self._read, tokens, started)

    def drawn(self, tokens: int, batches: Iterable[T]) -> Iterator[T]:
        """Each of `batches`, which read so many tokens in all: timed while it is drawn, and not
        while whoever draws it goes on with it."""
        rest, left = iter(batches), tokens
        while True:
            with self.reading(left):
                batch = next(rest, None)
            if batch is None:
                return
            left = 0
            yield batch

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
