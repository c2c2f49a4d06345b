"""Next-token distributions at the completions, kept so that models can be compared later.

Equal accuracy can hide many changed answers; the KL divergence between two models' next-token
distributions shows them. Distributions over a vocabulary of 256,000 are too large to keep, so
probabilities are summed over groups of tokens: group = token id mod `GROUPS`. By the data
processing inequality the divergence over groups never exceeds that over tokens; with a vocabulary
of at most `GROUPS` it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lorascope.bases.heads import gives_classes
from lorascope.counting.scored_batches import BatchRule, Sample
from lorascope.data.rows import PreparedRow
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.objectives.completion import last_completion, pad_samples
from lorascope.objectives.evaluation import evaluation_mode, log_probabilities
from lorascope.scoring.classes import class_log_probabilities

GROUPS = 512
MAX_TOKENS = 1024
"""Most completion tokens that are kept of a split, from its first rows on: 2 MiB."""


def token_distributions(
    model: Any, tokenizer: Any, rows: Sequence[PreparedRow], batch_size: int
) -> NDArray[np.float32]:
    """Log-probabilities of token groups at the completions' tokens, row by row: [tokens,
    min(vocabulary, GROUPS)], in nats. Equal rows and tokenizers give equal first axes, so that two
    models' arrays can be compared line by line. Of a model with a head for classes: those of the
    classes, a line a row."""
    if gives_classes(model.config):
        scores = class_log_probabilities(model, tokenizer, rows[:MAX_TOKENS], batch_size)
        classes: NDArray[np.float32] = scores.numpy()
        return classes
    samples = _first_samples(rows, tokenizer)
    embedding = model.get_input_embeddings().weight
    rule = BatchRule(batch_size, vocabulary=embedding.shape[0])
    sizes = [Sample(len(ids), _counted(labels)) for ids, labels in samples]
    parts: list[Tensor] = []
    rest = iter(samples)
    with evaluation_mode(model):
        for count in rule.sizes(sizes):
            ids, labels, mask = pad_samples(list(islice(rest, count)))
            # A position predicts the label behind it.
            predicting = functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
            positions = (predicting.flatten() != IGNORED_LABEL).nonzero().flatten()
            ids, positions, mask = (part.to(embedding.device) for part in (ids, positions, mask))
            parts.append(group_scores(model, ids, positions, mask).cpu())
    values: NDArray[np.float32] = torch.cat(parts).numpy()
    return values


def _first_samples(
    rows: Sequence[PreparedRow], tokenizer: Any
) -> list[tuple[list[int], list[int]]]:
    samples: list[tuple[list[int], list[int]]] = []
    tokens = 0
    for row in rows:
        ids, labels = last_completion(row, tokenizer)
        tokens += _counted(labels)
        if samples and tokens > MAX_TOKENS:
            break
        samples.append((ids, labels))
    return samples


def _counted(labels: Sequence[int]) -> int:
    return sum(label != IGNORED_LABEL for label in labels[1:])


def group_scores(model: Any, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities of token groups behind `positions` [positions, groups], as
    `log_probabilities` takes them."""
    return _grouped(log_probabilities(model, ids, positions, mask))


def _grouped(log_probabilities: Tensor) -> Tensor:
    """[tokens, vocabulary] -> [tokens, groups]: logarithms of the summed probabilities."""
    vocabulary = log_probabilities.shape[-1]
    if vocabulary <= GROUPS:
        return log_probabilities
    padding = -vocabulary % GROUPS
    padded = functional.pad(log_probabilities, (0, padding), value=-torch.inf)
    return torch.logsumexp(padded.reshape(len(padded), -1, GROUPS), dim=1)
