"""How many samples are scored at once: a rule of the samples alone, never of free memory.

Log-likelihoods move in their last digits with what they share a batch with. So batches are the same
on every machine, and small enough for long samples and large vocabularies. No torch: identities and
plans read the rule too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SCORED_SPLITS = ("validation", "test")
TOKENS = 256
"""Tokens of a sample that a full batch holds `batch_size` of; longer ones make it smaller."""
LOGITS = TOKENS * 2**15
"""Logits of such a sample, positions that are read times vocabulary: all of it and 32,768 words."""


@dataclass(frozen=True)
class Sample:
    """The size of what is scored in one row of a batch."""

    tokens: int
    """Tokens that the model reads, those that it generates included."""
    positions: int
    """Positions whose logits are read."""


@dataclass(frozen=True)
class LargestRows:
    """The most that any scored row asks for."""

    read: Sample
    """Tokens and positions of a log-likelihood."""
    generated_tokens: int
    """Tokens of a prompt and its generation; 0 where nothing is generated."""

    def or_larger(self, other: LargestRows) -> LargestRows:
        """What both hold at most."""
        tokens = max(self.read.tokens, other.read.tokens)
        read = Sample(tokens, max(self.read.positions, other.read.positions))
        return LargestRows(read, max(self.generated_tokens, other.generated_tokens))


@dataclass(frozen=True)
class BatchRule:
    """A batch has at most `batch_size` samples, and no more padded tokens and logits than as many
    samples of TOKENS and LOGITS; one sample always goes.

    A model with code of its own computes logits at all positions, and not only at those that are
    read (see `lorascope.objectives.logits.forward_at`): it holds more of them than the rule says.
    """

    batch_size: int
    vocabulary: int

    def sizes(self, samples: Iterable[Sample]) -> Iterator[int]:
        """Number of samples of each batch, in the order of `samples`."""
        count = positions = longest = 0
        for sample in samples:
            longest, positions = max(longest, sample.tokens), positions + sample.positions
            if count and not self.allows(count + 1, longest, positions):
                yield count
                count, longest, positions = 0, sample.tokens, sample.positions
            count += 1
        if count:
            yield count

    def allows(self, samples: int, tokens: int, positions: int) -> bool:
        """Whether samples that are padded to `tokens` may be one batch.

        Args:
            positions: of all samples together.
        """
        return (
            samples <= self.batch_size
            and samples * tokens <= self.batch_size * TOKENS
            and positions * self.vocabulary <= self.batch_size * LOGITS
        )

    def fullest(self, largest: Sample) -> Iterator[tuple[int, int, int]]:
        """(samples, tokens of each, positions of all) of the largest batches there can be, the
        longest samples first.

        Padded tokens and positions are most with `batch_size` samples, or with one that goes beyond
        the limits. Attention, padded tokens x length, is largest with as many of the longest
        samples as go, or with one more that are shorter. It is over when logits are made, so that
        no batch between needs more of both.
        """
        padded, read = self.batch_size * TOKENS, self.batch_size * LOGITS // self.vocabulary
        longest = max(1, min(self.batch_size, padded // largest.tokens))
        fewest = longest if largest.positions <= read else 1
        shorter = min(longest + 1, self.batch_size)
        for samples in sorted({fewest, longest, shorter, self.batch_size}):
            tokens = largest.tokens if samples == 1 else min(largest.tokens, padded // samples)
            positions = samples * min(largest.positions, tokens)
            yield samples, tokens, positions if samples == 1 else min(positions, read)

    def __str__(self) -> str:
        size = self.batch_size
        return (
            f"at most {size} samples, {size * TOKENS:,} padded tokens and {size * LOGITS:,} logits"
        )

    def limits(self, longest: Sample) -> bool:
        """Whether samples of this size make batches smaller than `batch_size`."""
        samples = self.batch_size
        return not self.allows(samples, longest.tokens, samples * longest.positions)
