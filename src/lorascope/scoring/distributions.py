"""Next-token distributions at the completions, kept so that models can be compared later.

Equal accuracy can hide many changed answers; the KL divergence between two models' next-token
distributions shows them. Distributions over a vocabulary of 256,000 are too large to keep, so
probabilities are summed over groups of tokens: group = token id mod `GROUPS`. By the data
processing inequality the divergence over groups never exceeds that over tokens; with a vocabulary
of at most `GROUPS` it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lorascope.data.rows import PreparedRow
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.objectives.completion import last_completion, pad_samples
from lorascope.objectives.evaluation import evaluation_mode

GROUPS = 512
MAX_TOKENS = 1024
"""Most completion tokens that are kept of a split, from its first rows on: 2 MiB."""


def token_distributions(
    model: nn.Module, tokenizer: Any, rows: Sequence[PreparedRow], batch_size: int
) -> NDArray[np.float32]:
    """Log-probabilities of token groups at the completions' tokens, row by row.

    Returns:
        [tokens, min(vocabulary, GROUPS)], natural logarithms. Equal rows and tokenizers give equal
        first axes, so that two models' arrays can be compared line by line.
    """
    samples = _first_samples(rows, tokenizer)
    device = next(model.parameters()).device
    parts: list[Tensor] = []
    with evaluation_mode(model):
        for start in range(0, len(samples), batch_size):
            ids, labels, mask = (
                part.to(device) for part in pad_samples(samples[start : start + batch_size])
            )
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            # Only the completions' positions: the whole batch in FP32 could be large.
            kept = logits[labels[:, 1:] != IGNORED_LABEL].float()
            parts.append(_grouped(torch.log_softmax(kept, dim=-1)).cpu())
    values: NDArray[np.float32] = torch.cat(parts).numpy()
    return values


def _first_samples(
    rows: Sequence[PreparedRow], tokenizer: Any
) -> list[tuple[list[int], list[int]]]:
    samples: list[tuple[list[int], list[int]]] = []
    tokens = 0
    for row in rows:
        ids, labels = last_completion(row, tokenizer)
        tokens += sum(label != IGNORED_LABEL for label in labels[1:])
        if samples and tokens > MAX_TOKENS:
            break
        samples.append((ids, labels))
    return samples


def _grouped(log_probabilities: Tensor) -> Tensor:
    """[tokens, vocabulary] -> [tokens, groups]: logarithms of the summed probabilities."""
    vocabulary = log_probabilities.shape[-1]
    if vocabulary <= GROUPS:
        return log_probabilities
    padding = -vocabulary % GROUPS
    padded = nn.functional.pad(log_probabilities, (0, padding), value=-torch.inf)
    return torch.logsumexp(padded.reshape(len(padded), -1, GROUPS), dim=1)
