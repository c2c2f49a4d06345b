"""Scores must be lm-eval's own, equal an obvious reference, and never depend on batching."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lorascope.config import Scoring
from lorascope.data.answers import is_right
from lorascope.data.rows import PreparedRow, Segment
from lorascope.data.tokenization import load_tokenizer, tokenize_row
from lorascope.errors import ConfigError, DataError, LorascopeError, ModelError
from lorascope.objectives.completion import completion_loss
from lorascope.objectives.evaluation import evaluation_mode
from lorascope.scoring.items import against_base, read_items, summarize, write_items
from lorascope.scoring.lm_eval_model import (
    encode_pairs,
    generation_prompts,
    splits_collide,
    usual_blank,
    wrap_model,
)
from lorascope.scoring.score import protocol, run_lm_eval_tasks, score_rows
from tests.devices import DEVICE

EOS = "<eos>"
CONTEXT_TOKENS = 32
TINYSTORIES = Path(__file__).parents[3] / "shared" / "models" / "tinystories-656k"
LOSS: dict[str, Any] = {
    "scoring": Scoring.loss,
    "answer_pattern": None,
    "batch_size": 4,
    "max_new_tokens": 3,
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Words w0 to w59, spaces belonging to the word after them; nothing added at either end."""
    words = ["<pad>", EOS, "<unk>", *(f"▁w{i}" for i in range(60))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token=EOS, unk_token="<unk>"
    )


def build_model(vocabulary: int = 64) -> LlamaForCausalLM:
    """Random, with weights large enough that its predictions differ and it stops at times."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).to(DEVICE.kind).eval()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from threads, and on a busy machine they wait for each
    other twenty times as long as they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return build_model()


def make_row(item: str, prompt: str, completion: str, **extra: Any) -> PreparedRow:
    segments = [Segment(prompt, False), Segment(completion, True)]
    return PreparedRow(item, segments, prompt, completion, **extra)


def random_rows(count: int, seed: int = 0) -> list[PreparedRow]:
    """Prompts of 1 to 12 words, completions of 1 to 5, four one- and two-word choices."""
    rng = np.random.default_rng(seed)

    def words(number: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(0, 60, number))

    rows = []
    for index in range(count):
        prompt, text = words(int(rng.integers(1, 13))), words(int(rng.integers(1, 6)))
        choices = [" " + " ".join(f"w{10 * k + int(j)}" for j in rng.integers(0, 10, k % 2 + 1))
                   for k in range(4)]  # fmt: skip
        answer = choices[int(rng.integers(4))].strip()
        rows.append(make_row(f"i{index}", prompt, f" {text}{EOS}", choices=choices, answer=answer))
    return rows


def reference_log_likelihood(model: Any, prompt: list[int], target: list[int]) -> float:
    """One row alone, unpadded, position by position, in double precision after the logits."""
    ids = torch.tensor([prompt + target], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double()
    total = 0.0
    for offset, token in enumerate(target):
        scores = logits[len(prompt) + offset - 1]
        total += float(scores[token] - torch.logsumexp(scores, 0))
    return total


def reference_generation(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int) -> str:
    """Greedy, one row alone, a full forward pass a token, no cache."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    made: list[int] = []
    for _ in range(max_new_tokens):
        so_far = torch.tensor([ids + made], device=model.device)
        with torch.no_grad():
            best = int(model(input_ids=so_far).logits[0, -1].argmax())
        if best == tokenizer.eos_token_id:
            break
        made.append(best)
    return str(tokenizer.decode(made, skip_special_tokens=True))


# Loss


@pytest.mark.gpu
def test_loss_of_each_row_equals_unbatched_reference(model: Any, tokenizer: Any) -> None:
    rows = random_rows(23)
    items = score_rows(model, tokenizer, rows, **LOSS)
    for row, item in zip(rows, items, strict=True):
        prompt = tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
        target = tokenizer(row.completion, add_special_tokens=False)["input_ids"]
        assert item.loss_nats == pytest.approx(
            -reference_log_likelihood(model, prompt, target), abs=1e-4
        )
        assert item.tokens == len(target) == len(row.completion.split()) + 1
        assert (item.item, item.correct) == (row.item, None)
        assert item.prompt_sha256 == hashlib.sha256(row.prompt.encode()).hexdigest()
        assert item.target_sha256 == hashlib.sha256(row.completion.encode()).hexdigest()


@pytest.mark.gpu
def test_loss_does_not_depend_on_batch_size_or_order(model: Any, tokenizer: Any) -> None:
    rows = random_rows(17)
    together = score_rows(model, tokenizer, rows, **{**LOSS, "batch_size": 17})
    alone = score_rows(model, tokenizer, rows[::-1], **{**LOSS, "batch_size": 1})[::-1]
    assert [i.item for i in together] == [i.item for i in alone]
    np.testing.assert_allclose(
        [i.loss_nats for i in together], [i.loss_nats for i in alone], atol=1e-4
    )


@pytest.mark.gpu
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_completion_loss_agrees_with_lm_eval(model: Any, tokenizer: Any, batch_size: int) -> None:
    rows = [*random_rows(20), make_row("no prompt", "", f" w3 w4{EOS}")]
    items = score_rows(model, tokenizer, rows, **LOSS)
    loss, tokens = completion_loss(model, tokenizer, rows, batch_size)
    assert tokens == sum(item.tokens for item in items)
    assert loss == pytest.approx(sum(item.loss_nats for item in items), abs=1e-4)


def test_completion_loss_counts_only_the_last_completion(model: Any, tokenizer: Any) -> None:
    turns = [Segment("w1", False), Segment(f" w2{EOS}", True), Segment(" w3", False)]
    row = PreparedRow("turns", [*turns, Segment(f" w4{EOS}", True)], f"w1 w2{EOS} w3", f" w4{EOS}")
    loss, tokens = completion_loss(model, tokenizer, [row], 1)
    assert tokens == 2
    assert loss == pytest.approx(score_rows(model, tokenizer, [row], **LOSS)[0].loss_nats, abs=1e-4)


def test_same_tokens_split_differently_score_as_alone(model: Any, tokenizer: Any) -> None:
    """lm-eval's shared forward pass would take the shorter completion's scores from elsewhere."""
    rows = [make_row("long", "w1 w2", f" w3 w4{EOS}"), make_row("short", "w1 w2 w3", f" w4{EOS}")]
    pairs = encode_pairs(tokenizer, [(r.prompt, r.completion) for r in rows])
    assert splits_collide(pairs)
    items = score_rows(model, tokenizer, rows, **LOSS)
    for (prompt, target), item in zip(pairs, items, strict=True):
        expected = -reference_log_likelihood(model, prompt, target)
        assert item.loss_nats == pytest.approx(expected, abs=1e-4)


def test_loss_beyond_the_range_of_exp_is_scored(tokenizer: Any) -> None:
    """lm-eval's own perplexity raises OverflowError where a completion costs 710 nats or more."""
    certain = build_model()
    with torch.no_grad():
        certain.lm_head.weight.mul_(1000)
    items = score_rows(certain, tokenizer, random_rows(2), **LOSS)
    assert max(item.loss_nats for item in items) > 710


def test_encoding_is_lm_evals_own(model: Any, tokenizer: Any) -> None:
    rows = random_rows(10)
    lm = wrap_model(model, tokenizer, 4, literal_special_tokens=False)
    expected = [lm._encode_pair(row.prompt, row.completion) for row in rows]
    assert encode_pairs(tokenizer, [(r.prompt, r.completion) for r in rows]) == expected


def build_joining_tokenizer() -> PreTrainedTokenizerFast:
    """As in Llama 3 and Qwen, ':' and a newline after it are one token."""
    words = ["<pad>", EOS, "<unk>", ":", "\n", ":\n", " ", *(f"w{i}" for i in range(50))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"w\d+|:\n|:|\s"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token=EOS, unk_token="<unk>"
    )


def test_blank_joined_with_the_prompt_is_read_as_in_training(model: Any) -> None:
    """Stock lm-eval would leave it out, so that no trained text is scored."""
    joining = build_joining_tokenizer()
    prompts = ["w1 w2:", "w3:", "w4"]
    rows = [make_row(p, p, f"\nw5{EOS}", answer="") for p in prompts]
    for index, row in enumerate(rows):
        ids = joining(row.prompt + "\n", add_special_tokens=False)["input_ids"]
        made = reference_generation(model, joining, row.prompt + "\n" * (index < 2), 3)
        rows[index] = replace(row, answer=made)
        target = joining(row.completion, add_special_tokens=False)["input_ids"][1:]
        expected = -reference_log_likelihood(model, ids, target)
        if index == 2:
            expected -= reference_log_likelihood(model, ids[:-1], ids[-1:])
        item = score_rows(model, joining, rows[index : index + 1], **LOSS)[0]
        assert item.tokens == len(target) + (index == 2)
        assert item.loss_nats == pytest.approx(expected, abs=1e-4)
        assert completion_loss(model, joining, [row], 1)[0] == pytest.approx(expected, abs=1e-4)
    items = score_rows(model, joining, rows, **{**LOSS, "scoring": Scoring.answer})
    assert [item.correct for item in items] == [True] * 3


def test_prepared_rows_score_as_in_stock_lm_eval(model: Any, tokenizer: Any) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    rows = random_rows(12)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, add_bos_token=False)
    requests = [
        Instance("loglikelihood", {}, (row.prompt, row.completion), 0, ("t", n, 1))
        for n, row in enumerate(rows)
    ]
    expected = [-score for score, _ in stock.loglikelihood(requests, disable_tqdm=True)]
    assert [item.loss_nats for item in score_rows(model, tokenizer, rows, **LOSS)] == expected


@pytest.mark.parametrize("scoring", [Scoring.loss, Scoring.answer])
def test_items_of_which_stock_lm_eval_makes_other_tokens_are_named(scoring: Scoring) -> None:
    """All others have stock lm-eval's scores; these do not, and say so."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    joining, model = build_joining_tokenizer(), build_model()
    rows = [
        make_row("joined", "w1 w2:", f"\nw3{EOS}", answer="w3"),
        make_row("apart", "w1 w2 w4", f" w5{EOS}", answer="w5"),
    ]
    items = score_rows(model, joining, rows, **{**LOSS, "scoring": scoring})
    assert [item.stock_encoding for item in items] == [False, True]
    assert summarize(items).items_unlike_stock == 1
    stock = HFLM(pretrained=model, tokenizer=joining, batch_size=4)
    requests = [Instance("loglikelihood", {}, (r.prompt, r.completion), 0) for r in rows]
    scores = [-score for score, _ in stock.loglikelihood(requests, disable_tqdm=True)]
    assert items[1].loss_nats == pytest.approx(scores[1], abs=1e-4)
    assert abs(items[0].loss_nats - scores[0]) > 0.1


def test_the_protocol_says_where_generation_ends(model: Any, tokenizer: Any) -> None:
    said = protocol(model, tokenizer, Scoring.answer, 7)
    assert "at most 7 new tokens, ends at token ids [1]," in said["generation"]
    assert "arithmetic" not in said


# Choices


@pytest.mark.gpu
@pytest.mark.parametrize("batch_size", [1, 64])
def test_choices_equal_brute_force(model: Any, tokenizer: Any, batch_size: int) -> None:
    rows = random_rows(25)
    settings = {**LOSS, "scoring": Scoring.choices, "batch_size": batch_size}
    items = score_rows(model, tokenizer, rows, **settings)
    for row, item in zip(rows, items, strict=True):
        assert row.choices is not None
        pairs = encode_pairs(tokenizer, [(row.prompt, choice) for choice in row.choices])
        scores = [reference_log_likelihood(model, *pair) for pair in pairs]
        assert item.correct == (row.choices[int(np.argmax(scores))].strip() == row.answer)
    assert 0 < sum(bool(item.correct) for item in items) < len(items)


@pytest.mark.gpu
@pytest.mark.parametrize("blank", [" ", ""])
def test_choices_by_length_are_lm_evals_acc_norm_without_the_blank(
    model: Any, tokenizer: Any, blank: str
) -> None:
    rows = [
        replace(row, choices=[*row.choices[:-1], row.choices[-1].replace(" ", blank, 1)])
        for row in random_rows(25)
        if row.choices
    ]
    items = score_rows(model, tokenizer, rows, **{**LOSS, "scoring": Scoring.choices})
    differing = 0
    for row, item in zip(rows, items, strict=True):
        assert row.choices is not None
        pairs = encode_pairs(tokenizer, [(row.prompt, choice) for choice in row.choices])
        scores = np.array([reference_log_likelihood(model, *pair) for pair in pairs])
        # Where not all choices begin with a blank, it is a character like others.
        characters = [len(choice) - (blank == " ") for choice in row.choices]
        best = row.choices[int(np.argmax(scores / characters))]
        assert item.correct_norm == (best.strip() == row.answer)
        differing += item.correct_norm != item.correct
    assert differing
    assert summarize(items).accuracy_norm == np.mean([item.correct_norm for item in items])


# Answers


@pytest.mark.gpu
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_answers_equal_unbatched_greedy_generation(
    model: Any, tokenizer: Any, batch_size: int
) -> None:
    rows = random_rows(24)
    made = [reference_generation(model, tokenizer, row.prompt, 5) for row in rows]
    assert len({len(text.split()) for text in made}) > 1, "some end early, some do not"
    rows = [
        replace(row, answer=text if index % 2 else f"{text} w0")
        for index, (row, text) in enumerate(zip(rows, made, strict=True))
    ]
    settings = {**LOSS, "scoring": Scoring.answer, "batch_size": batch_size, "max_new_tokens": 5}
    items = score_rows(model, tokenizer, rows, **settings)
    assert [item.correct for item in items] == [index % 2 == 1 for index in range(24)]


def test_answers_ignore_the_models_generation_config(tokenizer: Any) -> None:
    """Penalties, sampling and a missing end token must not reach a greedy score."""
    stubborn = build_model()
    config = stubborn.generation_config
    config.repetition_penalty, config.do_sample, config.temperature = 5.0, True, 3.0
    config.eos_token_id = None
    rows = [
        replace(row, answer=reference_generation(stubborn, tokenizer, row.prompt, 5))
        for row in random_rows(24)
    ]
    settings = {**LOSS, "scoring": Scoring.answer, "max_new_tokens": 5}
    assert all(item.correct for item in score_rows(stubborn, tokenizer, rows, **settings))
    assert stubborn.generation_config is config
    assert (config.repetition_penalty, config.eos_token_id) == (5.0, None)


@pytest.mark.gpu
def test_answers_of_an_adapted_model(tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        build_model(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    adapted.generation_config.repetition_penalty = 5.0
    rows = [
        replace(row, answer=reference_generation(adapted.eval(), tokenizer, row.prompt, 4))
        for row in random_rows(6)
    ]
    settings = {**LOSS, "scoring": Scoring.answer, "max_new_tokens": 4}
    assert all(item.correct for item in score_rows(adapted.train(), tokenizer, rows, **settings))
    assert adapted.training
    assert adapted.generation_config.repetition_penalty == 5.0


GSM8K = r"####\s*(-?[0-9.,]+)"


@pytest.mark.parametrize(
    ("generation", "answer", "pattern", "right"),
    [
        (" Paris ", "Paris", None, True),
        ("Paris.", "Paris", None, False),
        ("so\n#### 1,234.", "1234", GSM8K, True),
        ("#### 7\nQuestion: more\n#### 8", "7", GSM8K, True),
        ("#### 7\nQuestion: more\n#### 8", "8", GSM8K, False),
        ("#### -5", "she lost\n#### -5", GSM8K, True),
        ("the answer is 7", "7", GSM8K, False),
        ("#### 3.5", "3.5", GSM8K, True),
        ("", "", GSM8K, False),
        ("yes", "yes", r"yes(\d+)?", False),
    ],
)
def test_answer_judged(generation: str, answer: str, pattern: str | None, right: bool) -> None:
    assert is_right(generation, answer, pattern) is right


# Context


def test_generation_beyond_the_context_names_the_setting(model: Any, tokenizer: Any) -> None:
    prompt = " ".join(["w1"] * 30)
    rows = [make_row("long", prompt, f" w2{EOS}", answer="w2")]
    settings = {**LOSS, "scoring": Scoring.answer}
    assert len(score_rows(model, tokenizer, rows, **{**settings, "max_new_tokens": 2})) == 1
    with pytest.raises(DataError, match=r"item long: 30 .*evaluate\.max_new_tokens=3 .* to 2 or"):
        score_rows(model, tokenizer, rows, **{**settings, "max_new_tokens": 3})


def test_row_beyond_the_context_names_the_setting(model: Any, tokenizer: Any) -> None:
    rows = [make_row("long", " ".join(["w1"] * CONTEXT_TOKENS), f" w2{EOS}")]
    with pytest.raises(DataError, match=r"33 tokens, but the model reads 32.*data\.max_tokens"):
        score_rows(model, tokenizer, rows, **LOSS)


def test_no_rows_are_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="No rows"):
        completion_loss(model, tokenizer, [], 4)


# The model and the process are left as they were


def test_scoring_restores_modes_tokenizer_and_weights(tokenizer: Any) -> None:
    mixed, bare = build_model().train(), build_tokenizer()
    mixed.model.layers[0].eval()
    bare.pad_token = None
    flags = [module.training for module in mixed.modules()]
    before = {name: value.clone() for name, value in mixed.state_dict().items()}
    rows = random_rows(4)
    score_rows(mixed, bare, rows, **{**LOSS, "scoring": Scoring.answer})
    completion_loss(mixed, tokenizer, rows, 2)
    assert [module.training for module in mixed.modules()] == flags
    assert bare.pad_token is None
    assert all(torch.equal(before[name], value) for name, value in mixed.state_dict().items())


def test_modes_are_restored_after_an_error() -> None:
    training = build_model().train()
    seen: list[bool] = []

    def fail() -> None:
        with evaluation_mode(training):
            seen.append(training.training)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert seen == [False]
    assert training.training


def test_four_bit_layer_that_would_repack_is_refused(tokenizer: Any) -> None:
    four_bit = build_model()
    layer = Linear4bit(64, 128, bias=False)
    layer.support_avx512bf16_for_cpu = True
    four_bit.model.layers[1].mlp.up_proj = layer
    for score in (
        lambda: score_rows(four_bit, tokenizer, random_rows(2), **LOSS),
        lambda: completion_loss(four_bit, tokenizer, random_rows(2), 2),
    ):
        with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
            score()
    layer.support_avx512bf16_for_cpu = False
    layer.to("cpu")
    assert score_rows(four_bit, tokenizer, random_rows(2), **LOSS)


def test_scoring_is_quiet(model: Any, tokenizer: Any, capfd: Any, caplog: Any) -> None:
    level = logging.getLogger("lm_eval").level
    score_rows(model, tokenizer, random_rows(3), **{**LOSS, "scoring": Scoring.answer})
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger("lm_eval").level == level


@pytest.mark.parametrize(
    ("scoring", "losses"), [(Scoring.loss, 9), (Scoring.answer, 9), (Scoring.choices, 45)]
)
def test_progress_is_told_after_each_batch(
    model: Any, tokenizer: Any, scoring: Scoring, losses: int
) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def note(done: int, total: int, *, unit: str = "") -> None:
        seen.setdefault(unit, []).append((done, total))

    settings = {**LOSS, "scoring": scoring, "batch_size": 4}
    score_rows(model, tokenizer, random_rows(9), **settings, on_progress=note)
    totals = {"losses": losses, **({"answers": 9} if scoring is Scoring.answer else {})}
    assert {unit: told[-1] for unit, told in seen.items()} == {
        unit: (total, total) for unit, total in totals.items()
    }
    assert seen["answers" if scoring is Scoring.answer else "losses"][0][0] >= 4
    assert len(seen["losses"]) < losses


# lm-eval's own tasks


def test_task_file_is_scored_offline_as_rows_are(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    rows = random_rows(8)
    docs = [{"prompt": row.prompt, "target": row.completion} for row in rows]
    (tmp_path / "docs.json").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (tmp_path / "mine.yaml").write_text(
        f"""task: mine
dataset_path: json
dataset_kwargs:
  data_files: {{test: {tmp_path}/docs.json}}
  cache_dir: {tmp_path}/cache
test_split: test
output_type: loglikelihood
doc_to_text: prompt
doc_to_target: target
target_delimiter: ""
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
    )
    metrics = run_lm_eval_tasks(model, tokenizer, [str(tmp_path / "mine.yaml")], 4)
    items = score_rows(model, tokenizer, rows, **LOSS)
    mean_nats = sum(item.loss_nats for item in items) / len(items)
    assert metrics == {
        "mine/perplexity": pytest.approx(math.exp(mean_nats), rel=1e-5),
        "mine/acc": 0.0,
    }


def test_no_tasks_cost_nothing(model: Any, tokenizer: Any) -> None:
    assert run_lm_eval_tasks(model, tokenizer, [], 4) == {}


def test_unknown_task_names_the_setting(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.lm_eval_tasks=\['none\.yaml'\]") as error:
        run_lm_eval_tasks(model, tokenizer, ["none.yaml"], 4)
    assert isinstance(error.value, LorascopeError)
    assert "lm-eval ls tasks" in str(error.value)


def test_items_file_is_deterministic_and_exact(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    rows = random_rows(9)
    settings = {**LOSS, "scoring": Scoring.answer}
    for name in ("first", "second"):
        write_items(tmp_path / name, score_rows(model, tokenizer, rows, **settings))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    again = read_items(tmp_path / "first")
    assert again == score_rows(model, tokenizer, rows, **settings)


# A trained model with a tokenizer that has its own beginning-of-text token


@pytest.mark.skipif(not TINYSTORIES.is_dir(), reason="shared/models/tinystories-656k is not here")
def test_real_model_scores_equal_references() -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(TINYSTORIES)
    model = AutoModelForCausalLM.from_pretrained(TINYSTORIES).eval()
    start, end = tokenizer.bos_token, tokenizer.eos_token
    texts = [
        ("Once upon a time, there was a little", "girl"),  # one token with the prompt's last word
        ("Tom had a big red", "ball"),
        ("The dog ran to the", "park. He saw a"),
        ("Lily was very happy. She", "said"),
    ]
    rows = [make_row(t, f"{start}{t}", f" {c}{end}", answer=c) for t, c in texts]
    items = score_rows(model, tokenizer, rows, Scoring.answer, None, 4, 6)
    for row, item in zip(rows, items, strict=True):
        ids, labels = tokenize_row(row, tokenizer)
        assert (ids[0], labels[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert ids.count(tokenizer.bos_token_id) == 1
        cut = labels.count(-100)
        expected = -reference_log_likelihood(model, ids[:cut], ids[cut:])
        assert item.loss_nats == pytest.approx(expected, abs=1e-4)
        assert item.tokens == len(ids) - cut
    made = [
        reference_generation(model, tokenizer, text, 6)
        for text in generation_prompts(tokenizer, rows)
    ]
    # Its tokenizer has a blank with the word before it where that is common.
    asked = [make_row(n, f"{start}The car of {n} is", f" red{end}") for n in ("Tom", "Amy", "Ben")]
    assert generation_prompts(tokenizer, asked)[0] == f"{asked[0].prompt} "
    assert usual_blank(tokenizer, [*asked, rows[1]]) == " "
    again = [replace(row, answer=text.strip()) for row, text in zip(rows, made, strict=True)]
    items = score_rows(model, tokenizer, again, Scoring.answer, None, 4, 6)
    assert all(item.correct for item in items)
    loss, tokens = completion_loss(model, tokenizer, rows, 3)
    assert tokens == sum(item.tokens for item in items)
    assert loss == pytest.approx(sum(item.loss_nats for item in items), abs=1e-4)


def test_a_pair_is_right_where_the_chosen_reply_gained_and_half_where_nothing_moved() -> None:
    """Against plain torch; margins are over another model's odds, item by item."""
    tokenizer, model = build_tokenizer(), build_model()
    replies = [(" w7", " w9"), (" w4 w5", " w11"), (" w21", " w3 w2"), (" w8", " w8 w8")]
    rows, likelier = [], []
    for number, (chosen, rejected) in enumerate(replies):
        segments = [Segment(f"w{number} w1", False), Segment(chosen + EOS, True)]
        prompt = segments[0].text
        rows.append(
            PreparedRow(str(number), segments, prompt, chosen + EOS, rejected=rejected + EOS)
        )
    pairs = {**LOSS, "scoring": Scoring.preference}
    items = score_rows(model, tokenizer, rows, **pairs)
    for row, item in zip(rows, items, strict=True):
        losses = [plain_loss(model, tokenizer, one) for one in (row, row.with_rejected)]
        assert item.loss_nats == pytest.approx(losses[0], abs=1e-4)
        assert item.rejected_loss_nats == pytest.approx(losses[1], abs=1e-4)
        likelier.append(losses[0] < losses[1])
        # What is scored alone has moved no pair.
        assert item.correct == 0.5
    assert summarize(items).margin_nats is None
    assert summarize(items).likelier_share == sum(likelier) / 4
    assert summarize(items).accuracy == 0.5
    moved = [replace(item, loss_nats=item.loss_nats - gain) for item, gain in zip(
        items, (0.5, -0.25, 1.0, 0.0), strict=True
    )]  # fmt: skip
    judged = against_base(moved, items)
    assert [item.margin_nats for item in judged] == pytest.approx([0.5, -0.25, 1.0, 0.0])
    assert [item.correct for item in judged] == [True, False, True, 0.5]
    score = summarize(judged)
    assert score.accuracy == 2.5 / 4
    assert score.margin_nats == pytest.approx(0.3125)
    with pytest.raises(DataError, match="other pairs"):
        against_base(moved, items[1:])


def plain_loss(model: LlamaForCausalLM, tokenizer: Any, row: PreparedRow) -> float:
    """Summed loss of a row's last reply, by softmax over the whole row."""
    ids, labels = tokenize_row(row, tokenizer)
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=DEVICE.kind)).logits[0].float()
    told = logits.log_softmax(-1)
    return -float(sum(told[p - 1, i] for p, i in enumerate(labels) if i != -100))
