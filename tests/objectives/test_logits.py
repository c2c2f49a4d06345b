"""Logits at labelled positions against a model's own, at all positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PhiConfig,
    PretrainedConfig,
)

from lorascope.objectives import logits
from lorascope.objectives.completion import Completion
from lorascope.objectives.evaluation import (
    evaluation_mode,
    forward_of,
    log_probabilities,
    summed_loss,
)
from lorascope.objectives.kinds import Places, TokenBatch

SHAPE: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HEADED = {
    "bare": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "tied": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=32),
    "bias": PhiConfig(**SHAPE),
    "capped": Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=2.0),
    "scaled": CohereConfig(**SHAPE, logit_scale=0.0625),
    "divided": GraniteConfig(**SHAPE, logits_scaling=8.0),
    "experts": MixtralConfig(**SHAPE, num_local_experts=2),
    "multiplied": FalconH1Config(
        **SHAPE, lm_head_multiplier=0.5, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8
    ),
}
WHOLE = {
    "called below": OPTConfig(
        vocab_size=97, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, word_embed_proj_dim=32,
    ),
    "layer in the head": BertConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, is_decoder=True,
    ),
}  # fmt: skip


def model_of(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.requires_grad_(False)
    model.get_input_embeddings().weight.requires_grad_(True)
    return model


def batch_of(trials: int = 2) -> TokenBatch:
    """Four rows of 9 to 12 tokens, of which the last three to six are trained."""
    torch.manual_seed(1)
    samples = []
    for row in range(4):
        ids = torch.randint(3, 97, (9 + row,))
        samples.append((ids, torch.where(torch.arange(9 + row) < 6, -100, ids)))
    return Completion().collate(samples, trials, 0)


def plain_losses(model: Any, batch: TokenBatch) -> Tensor:
    """Each row's summed loss, from logits at all positions."""
    every = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    losses = functional.cross_entropy(
        every[:, :-1].transpose(1, 2), batch.labels[:, 1:], reduction="none"
    )
    return losses.sum(1)


@pytest.mark.parametrize("at_once", [10**9, 97 * 5])
@pytest.mark.parametrize("name", [*HEADED, *WHOLE])
def test_logits_losses_and_gradients_are_those_of_the_models_own_forward_pass(
    name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caps, scales and biases behind the head among them, at once and in parts of five places."""
    monkeypatch.setattr(logits, "LOGITS_AT_ONCE", at_once)
    model, batch = model_of({**HEADED, **WHOLE}[name]), batch_of()
    weight = model.get_input_embeddings().weight
    every = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    places = Places(torch.tensor([0, 7, 12, 30]), [3, 1])
    ours = forward_of(model)(batch, places).all()
    assert torch.allclose(ours, every.flatten(0, 1)[places.index], rtol=1e-6, atol=1e-6)

    losses = Completion().losses(forward_of(model), batch).summed
    expected = plain_losses(model, batch).view(2, 2).sum(1)
    assert torch.allclose(losses, expected, rtol=1e-6)
    (gradient,) = torch.autograd.grad(losses.sum(), weight)
    (own,) = torch.autograd.grad(expected.sum(), weight)
    assert torch.allclose(gradient, own, rtol=1e-5, atol=1e-6 * float(own.abs().max()))


def test_a_head_sees_labelled_positions_only_and_one_trials_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = list(torch.randint(3, 97, (3, 30)))
    labelled = [(own, torch.where(torch.arange(30) < 10, -100, own)) for own in ids]
    model, batch = model_of(HEADED["bare"]), Completion().collate(labelled, 3, 0)
    seen: list[int] = []
    model.lm_head.register_forward_hook(
        lambda head, args, output: seen.append(output.numel() // output.shape[-1])
    )
    assert batch.places.counts == [20, 20, 20]
    Completion().losses(forward_of(model), batch)
    assert seen == [60]
    seen.clear()
    monkeypatch.setattr(logits, "LOGITS_AT_ONCE", 97 * 25)
    loss = Completion().losses(forward_of(model), batch).summed.sum()
    # Nothing is asked of the head while the layers run.
    assert seen == [0, 20, 20, 20]
    loss.backward()  # type: ignore[no-untyped-call]
    # Each trial's logits are made again on the way back.
    assert seen == [0, 20, 20, 20, 20, 20, 20]


def test_a_few_places_are_rounded_as_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU's product of one to three rows is computed in another way."""
    model, batch = model_of(HEADED["bare"]), batch_of()
    every = forward_of(model)(batch, Places(torch.arange(48), [24, 24])).all()
    index = torch.tensor([5])
    for at_once in (10**9, 97 * 2):
        monkeypatch.setattr(logits, "LOGITS_AT_ONCE", at_once)
        assert torch.equal(forward_of(model)(batch, Places(index, [1, 0])).all(), every[index])


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_few_positions_are_scored_with_the_bits_of_all(count: int) -> None:
    """Scores of the last, small batch of a split are those of any other."""
    config = LlamaConfig(**{**SHAPE, "hidden_size": 256, "vocab_size": 512})
    model, ids = model_of(config), torch.randint(3, 512, (2, 20))
    with evaluation_mode(model):
        expected = model(input_ids=ids, use_cache=False).logits.flatten(0, 1).log_softmax(-1)
        found = log_probabilities(model, ids, torch.arange(5, 5 + count))
    assert torch.equal(found, expected[5 : 5 + count])


def test_a_model_with_code_of_its_own_makes_all_logits() -> None:
    class Own(type(model_of(HEADED["bare"]))):  # type: ignore[misc]
        """A model whose code no release of transformers has."""

    model, batch = Own(HEADED["bare"]).eval(), batch_of()
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda head, args, output: seen.append(output.shape[1]))
    losses = Completion().losses(forward_of(model), batch).summed
    assert seen == [batch.shape[1]]
    assert torch.allclose(losses, plain_losses(model, batch).view(2, 2).sum(1), rtol=1e-6)


def test_a_batch_that_is_validated_in_parts_has_the_same_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lorascope.objectives import evaluation

    model, objective = model_of(HEADED["bare"]), Completion()
    batch = batch_of()
    lengths = batch.attention_mask.sum(1).tolist()
    samples = [
        (batch.input_ids[row, :length], batch.labels[row, :length])
        for row, length in reversed(list(enumerate(lengths)))
    ]
    shapes: list[tuple[int, ...]] = []
    whole = summed_loss(objective, model, samples, 4, lambda own: shapes.append(own.shape))
    monkeypatch.setattr(evaluation, "TOKENS_AT_ONCE", 36)
    parts = summed_loss(objective, model, samples, 4, lambda own: shapes.append(own.shape))
    assert shapes == [(4, 12), (3, 12), (1, 12)]
    assert parts[0] == pytest.approx(whole[0], rel=1e-14)
    assert parts[1] == whole[1] == sum(batch.places.counts)
