"""Batches follow from the samples alone, whatever the machine has free."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import MistralConfig, MistralForCausalLM

from lorascope.adapters.attach import attach
from lorascope.adapters.kinds import KINDS
from lorascope.config import Scoring
from lorascope.counting.scored_batches import LOGITS, TOKENS, BatchRule, Sample
from lorascope.objectives.logits import FEWEST_ROWS
from lorascope.scoring.score import score_rows
from tests.scoring.test_evaluation import (
    LOSS,
    build_model,
    build_tokenizer,
    random_rows,
    reference_generation,
)

SMALL = 1000
"""A vocabulary that limits nothing."""


@pytest.mark.parametrize(
    ("samples", "vocabulary", "sizes"),
    [
        ([Sample(TOKENS, 9)] * 9, SMALL, [4, 4, 1]),
        ([Sample(TOKENS + 1, 9)] * 9, SMALL, [3, 3, 3]),
        ([Sample(4 * TOKENS, 9)] * 2 + [Sample(TOKENS, 9)] * 3, SMALL, [1, 1, 3]),
        # A batch is padded to its longest, wherever that stands.
        ([Sample(9, 9), Sample(4 * TOKENS, 9), Sample(9, 9)], SMALL, [1, 1, 1]),
        ([Sample(9 * TOKENS, 9)] * 2, SMALL, [1, 1]),
        # Positions that are read count, not those that the model reads.
        ([Sample(100, 8)] * 5, LOGITS // 8, [4, 1]),
        ([Sample(100, 9)] * 5, LOGITS // 8, [3, 2]),
        ([], SMALL, []),
    ],
)
def test_batches_of_long_samples_and_large_vocabularies_are_smaller(
    samples: list[Sample], vocabulary: int, sizes: list[int]
) -> None:
    rule = BatchRule(batch_size=4, vocabulary=vocabulary)
    assert list(rule.sizes(samples)) == sizes
    if samples:
        longest = max(samples, key=lambda sample: sample.tokens)
        assert rule.limits(longest) == (max(sizes) < 4)


@settings(max_examples=50, deadline=None)
@given(
    batch_size=st.integers(1, 7),
    vocabulary=st.sampled_from([SMALL, 32_000, 256_000, 3_000_000]),
    tokens=st.integers(1, 1900),
    positions=st.integers(1, 1900),
)
@example(batch_size=16, vocabulary=SMALL, tokens=2049, positions=2048)
# One sample has more positions than several may.
@example(batch_size=4, vocabulary=256_000, tokens=400, positions=400)
def test_no_batch_that_the_rule_allows_needs_more_than_the_fullest(
    batch_size: int, vocabulary: int, tokens: int, positions: int
) -> None:
    rule, most = BatchRule(batch_size, vocabulary), batch_size * LOGITS // vocabulary
    allowed = []
    for samples, length in product(range(1, batch_size + 1), range(1, tokens + 1)):
        read = samples * min(positions, length)
        if samples == 1 or rule.allows(samples, length, min(read, most)):
            allowed.append((samples, length, read if samples == 1 else min(read, most)))
    fullest = list(rule.fullest(Sample(tokens, positions)))
    assert set(fullest) <= set(allowed)
    (padded, *others), (found_padded, *found) = needs(allowed), needs(fullest)
    assert found_padded.max() == padded.max()
    for every, own in zip(others, found, strict=True):
        assert own.max() == every.max()
        # Tokens that a length does not divide are left out.
        for weight in np.linspace(0, every.max() / padded.max(), 9):
            assert (weight * padded + every).max() <= 1.005 * (weight * found_padded + own).max()


def needs(batches: list[tuple[int, int, int]]) -> NDArray[np.int64]:
    """Padded tokens, what attention makes of them, and positions: [3, batches]."""
    samples, tokens, positions = np.array(batches).T
    return np.array([samples * tokens, samples * tokens**2, positions])


def test_two_nearly_longest_samples_may_be_one_batch() -> None:
    fullest = BatchRule(16, SMALL).fullest(Sample(2049, 60))
    assert list(fullest) == [(1, 2049, 60), (2, 2048, 120), (16, 256, 960)]


@pytest.mark.parametrize("scoring", [Scoring.loss, Scoring.answer])
def test_the_head_sees_what_is_read_and_a_log_likelihood_caches_nothing(scoring: Scoring) -> None:
    model, tokenizer, rows = build_model(), build_tokenizer(), random_rows(9)
    logits: list[int] = []
    cached: list[bool] = []

    def count(head: Any, given: Any, output: Any) -> None:
        logits.append(output.shape[:-1].numel())

    def look(module: Any, given: Any, output: Any) -> None:
        cached.append(output.past_key_values is not None)

    model.lm_head.register_forward_hook(count)
    model.register_forward_hook(look)
    items = score_rows(model, tokenizer, rows, scoring, None, 4, 3)
    # Three batches of log-likelihoods, and then the steps of generations. The third batch reads
    # three positions, which a CPU would round otherwise by themselves.
    assert sum(logits[:2]) + 3 == sum(item.tokens for item in items)
    assert logits[2] == FEWEST_ROWS
    assert max(logits[3:], default=1) <= 4
    assert not any(cached[:3])
    assert bool(logits[3:]) == (scoring is Scoring.answer)


@pytest.mark.parametrize("kind", ["prompt", "prefix", "prefix_layer"])
def test_padding_takes_no_place_in_a_window_between_a_prompt_and_its_text(kind: str) -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=8, initializer_range=0.2,
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    model = attach(MistralForCausalLM(config), KINDS[kind].config(tokens=3), seed=0).eval()
    with torch.no_grad():
        for own in model.parameters():
            if own.requires_grad:
                own.mul_(5)
    tokenizer = build_tokenizer()
    rows = [
        replace(row, answer=reference_generation(model, tokenizer, row.prompt, 5))
        for row in random_rows(12)
    ]
    settings = {**LOSS, "scoring": Scoring.answer, "max_new_tokens": 5}
    assert all(item.correct for item in score_rows(model, tokenizer, rows, **settings))
