"""Log-likelihoods of continuations, as lm-eval computes them, from the logits that are read.

lm-eval 0.4.13 asks for the logits of all positions, with a cache of keys and values that nobody
reads, and takes the softmax of them all: 51 GB for Llama-2-7B in NF4 and 64 samples of 1,024
tokens, as traced on fake tensors. Here batches are of 16 such samples, which take 9.6 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lorascope.counting.scored_batches import BatchRule, Sample
from lorascope.objectives.evaluation import log_probabilities

Encoded = tuple[list[int], list[int]]
"""Token ids of a context and of its continuation."""
LogLikelihood = tuple[float, bool]
"""Log-likelihood of a continuation in nats, and whether each token is the one expected most."""


@dataclass(frozen=True)
class Passage:
    """Tokens that the model reads once, for one request or several."""

    ids: list[int]
    """Without the last token of a continuation, which predicts nothing."""
    targets: dict[int, list[int]]
    """Number of a request -> its continuation, which ends one token behind `ids`."""

    @property
    def size(self) -> Sample:
        """Its tokens, and as many positions as the longest continuation has."""
        return Sample(len(self.ids), max(len(target) for target in self.targets.values()))


def passages(requests: Sequence[Encoded], context_tokens: int, share: bool) -> list[Passage]:
    """What is read for `requests`, in lm-eval's order: the longest first, cut from the left to
    `context_tokens`. With `share`, what is equal but for the last token is read once, such as
    one-token choices."""
    together: dict[object, list[int]] = {}
    for number, (context, target) in enumerate(requests):
        together.setdefault((*context, *target[:-1]) if share else number, []).append(number)
    firsts = [max(own, key=lambda n: len(requests[n][1])) for own in together.values()]
    wholes = [requests[first][0] + requests[first][1] for first in firsts]
    read = [
        Passage(whole[-context_tokens - 1 : -1], {n: requests[n][1] for n in own})
        for whole, own in zip(wholes, together.values(), strict=True)
    ]
    order = sorted(range(len(read)), key=lambda n: (-len(wholes[n]), tuple(wholes[n])))
    return [read[n] for n in order]


def log_likelihoods(
    model: Any, read: Sequence[Passage], rule: BatchRule
) -> Iterator[dict[int, LogLikelihood]]:
    """Batch by batch, the number of each request and its log-likelihood, in `evaluation_mode`."""
    rest = iter(read)
    for count in rule.sizes(passage.size for passage in read):
        yield dict(_batch(model, list(islice(rest, count))))


def token_scores(
    model: Any, ids: Tensor, positions: Tensor, lines: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens `wanted` [tokens], and whether each is the most probable.

    Args:
        ids: [samples, tokens], padded on the right.
        positions: [positions] before which tokens are read, counted through all samples.
        lines: [tokens]: the place in `positions` of each token's.
    """
    scores = log_probabilities(model, ids, positions)
    return scores[lines, wanted], scores.argmax(-1)[lines] == wanted


def _batch(model: Any, read: Sequence[Passage]) -> Iterator[tuple[int, LogLikelihood]]:
    device = model.device
    # What is padded comes behind all that counts, and no position looks ahead.
    ids = pad_sequence([torch.tensor(passage.ids) for passage in read], batch_first=True)
    width, positions, lines, targets = ids.shape[1], list[int](), list[int](), list[int]()
    requests: dict[int, int] = {}
    for row, passage in enumerate(read):
        end = row * width + len(passage.ids)
        positions += range(end - passage.size.positions, end)
        for number, target in passage.targets.items():
            lines += range(len(positions) - len(target), len(positions))
            targets += target
            requests[number] = len(target)
    asked = (torch.tensor(numbers, device=device) for numbers in (positions, lines, targets))
    found, best = (part.cpu() for part in token_scores(model, ids.to(device), *asked))
    values = torch.split(found, list(requests.values()))
    expected = torch.split(best, list(requests.values()))
    for number, own, best in zip(requests, values, expected, strict=True):
        yield number, (float(own.sum()), bool(best.all()))
