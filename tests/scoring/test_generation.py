"""What a model writes: greedy as a loop over whole forward passes, drawn as torch draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lorascope.errors import ModelError
from lorascope.scoring.generation import Writing, require_writer, write
from tests.scoring.test_evaluation import (
    CONTEXT_TOKENS,
    build_model,
    build_tokenizer,
    random_rows,
    reference_generation,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model()


@pytest.mark.gpu
def test_greedy_text_is_that_of_a_plain_loop(tokenizer: Any) -> None:
    ending = build_model()
    with torch.no_grad():
        ending.lm_head.weight[tokenizer.eos_token_id] *= 3
    ended = []
    for row in random_rows(12):
        written = write(ending, tokenizer, row.prompt, Writing(5), CONTEXT_TOKENS)
        assert written.text == reference_generation(ending, tokenizer, row.prompt, 5)
        ended.append(written.ended)
        assert written.ended or written.tokens == 5
    assert len(set(ended)) == 2


def test_drawn_text_is_torchs_own_draw_and_depends_on_its_seed_alone(
    model: Any, tokenizer: Any
) -> None:
    prompt, how = random_rows(1)[0].prompt, Writing(6, temperature=1.3, seed=5)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    torch.manual_seed(5)
    made: list[int] = []
    for _ in range(6):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + made])).logits[0, -1].float()
        token = int(torch.multinomial(torch.softmax(logits / 1.3, -1), 1))
        made.append(token)
        if token == tokenizer.eos_token_id:
            break
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    written = write(model, tokenizer, prompt, how, CONTEXT_TOKENS)
    assert written.text == tokenizer.decode(made, skip_special_tokens=True).strip()
    assert torch.equal(torch.random.get_rng_state(), before)
    texts = {
        write(model, tokenizer, prompt, Writing(6, 1.3, s), CONTEXT_TOKENS).text for s in range(4)
    }
    assert len(texts) > 1


def test_a_context_that_ends_cuts_the_answer_and_a_full_one_is_refused(
    model: Any, tokenizer: Any
) -> None:
    row = random_rows(1)[0]
    length = len(row.prompt.split())
    assert write(model, tokenizer, row.prompt, Writing(9), length + 1).tokens == 1
    with pytest.raises(ModelError, match=rf"{length} tokens, and the model reads {length}"):
        write(model, tokenizer, row.prompt, Writing(9), length)


def test_what_gives_classes_writes_no_text(model: Any) -> None:
    config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    with pytest.raises(ModelError, match="BertForSequenceClassification gives no next token"):
        require_writer(BertForSequenceClassification(config), "base")
    require_writer(model, "base")
