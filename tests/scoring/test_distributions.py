"""Kept distributions against the model's own softmax, and what grouping does to divergences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lorascope.scoring.distributions import GROUPS, _grouped, token_distributions
from tests.scoring.test_evaluation import build_model, build_tokenizer, make_row


def test_lines_are_the_softmax_at_the_completions_tokens() -> None:
    model, tokenizer = build_model(), build_tokenizer()
    rows = [make_row("a", "w1 w2", " w3<eos>"), make_row("b", "w4", " w5 w6<eos>")]
    kept = token_distributions(model, tokenizer, rows, batch_size=2)
    assert kept.shape == (2 + 3, 64)
    ids = torch.tensor([tokenizer("w4 w5 w6<eos>", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        alone = torch.log_softmax(model(ids).logits[0], dim=-1)
    np.testing.assert_allclose(kept[2:], alone[:3].numpy(), atol=2e-5)


def test_batching_does_not_matter_and_equal_models_give_equal_bytes() -> None:
    model, tokenizer = build_model(), build_tokenizer()
    rows = [make_row(f"i{i}", f"w{i}", f" w{i + 1}<eos>") for i in range(7)]
    once = token_distributions(model, tokenizer, rows, batch_size=3)
    assert once.tobytes() == token_distributions(model, tokenizer, rows, batch_size=3).tobytes()
    np.testing.assert_allclose(
        once, token_distributions(model, tokenizer, rows, batch_size=7), atol=2e-5
    )


@pytest.mark.parametrize("vocabulary", [GROUPS, GROUPS + 1, 3 * GROUPS, 5000])
def test_groups_hold_all_probability_and_never_raise_the_divergence(vocabulary: int) -> None:
    torch.manual_seed(0)
    log_p = torch.log_softmax(2 * torch.randn(6, vocabulary, dtype=torch.float64), dim=-1)
    log_q = torch.log_softmax(log_p + 0.3 * torch.randn_like(log_p), dim=-1)
    p, q = _grouped(log_p), _grouped(log_q)
    assert p.shape == (6, GROUPS)
    torch.testing.assert_close(p.exp().sum(dim=1), torch.ones(6, dtype=torch.float64))
    whole = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    grouped = (p.exp() * (p - q)).sum(dim=1)
    assert bool((grouped <= whole + 1e-12).all())
    if vocabulary == GROUPS:
        torch.testing.assert_close(grouped, whole)
