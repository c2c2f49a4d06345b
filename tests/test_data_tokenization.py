"""Token ids and labels: exactly the completions and their end tokens are trained."""

from __future__ import annotations

import pytest

from lorascope.config import DataConfig, Format, TemplateKind
from lorascope.data.files import RawRow
from lorascope.data.formats import to_conversation
from lorascope.data.prepare import prepare_row
from lorascope.data.templates import make_template
from lorascope.data.tokenization import (
    IGNORED_LABEL,
    load_tokenizer,
    tokenize_row,
    tokenizer_sha256,
)
from tests.data_samples import (
    NO_SHARED,
    SHARED,
    TWO_TURNS,
    letter_tokenizer,
    prepared,
    trained,
    word_tokenizer,
)


@pytest.mark.parametrize("kind", list(TemplateKind))
def test_labels_are_the_completions_and_their_end_tokens(kind: TemplateKind) -> None:
    tokenizer = letter_tokenizer()
    row = prepared(TWO_TURNS, kind)
    ids, labels = tokenize_row(row, tokenizer)
    assert tokenizer.decode(ids) == row.text
    assert tokenizer.decode([i for i in labels if i != IGNORED_LABEL]) == "".join(trained(row))
    assert all(label in (IGNORED_LABEL, i) for i, label in zip(ids, labels, strict=True))
    assert labels[-1] == tokenizer.eos_token_id


def test_train_on_prompt_trains_every_token() -> None:
    ids, labels = tokenize_row(prepared(TWO_TURNS), letter_tokenizer(), train_on_prompt=True)
    assert ids == labels


def test_prompt_alone_is_a_prefix_of_the_sample() -> None:
    tokenizer, row = letter_tokenizer(), prepared(TWO_TURNS, TemplateKind.llama2)
    ids, labels = tokenize_row(row, tokenizer)
    prompt = tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
    assert ids[: len(prompt)] == prompt
    assert ids[len(prompt) :] == labels[len(prompt) :]


def test_tokenizer_digest_ignores_switches_that_calls_leave_behind() -> None:
    tokenizer = word_tokenizer("a", "b")
    before = tokenizer_sha256(tokenizer)
    tokenizer(["a b a b"], truncation=True, max_length=2, padding="do_not_pad")
    assert tokenizer_sha256(tokenizer) == before
    assert tokenizer_sha256(word_tokenizer("a", "c")) != before


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_unknown_characters_keep_a_token_and_true_offsets_in_tinystories() -> None:
    tokenizer = load_tokenizer(SHARED / "models" / "tinystories-656k")
    encoded = tokenizer("a = é b", add_special_tokens=False, return_offsets_mapping=True)
    assert list(encoded["input_ids"]).count(tokenizer.unk_token_id) == 2
    assert encoded["offset_mapping"][-1] == (6, 7)


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_trained_tokens_are_those_that_lm_eval_scores_in_tinystories() -> None:
    tokenizer = load_tokenizer(SHARED / "models" / "tinystories-656k")
    template = make_template(TemplateKind.plain, None, tokenizer)
    lines = (SHARED / "data" / "e2e-nlg" / "valid.txt").read_text(encoding="utf-8").splitlines()
    for line in lines[::100]:
        conversation = to_conversation(RawRow({"text": line}, "here"), Format.source_target)
        row = prepare_row(conversation, template, DataConfig(name="x"))
        _, labels = tokenize_row(row, tokenizer)
        prompt = tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
        whole = tokenizer(row.prompt + row.completion, add_special_tokens=False)["input_ids"]
        assert [i for i in labels if i != IGNORED_LABEL] == whole[len(prompt) :]
        assert row.prompt.startswith("<|start_story|>name")
