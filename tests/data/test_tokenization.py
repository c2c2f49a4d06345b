"""Token ids and labels: exactly the completions and their end tokens are trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lorascope.bases.folder import copy_files, keep_unknown_token
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
from tests.data.samples import (
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


def save_llama_without_bytes(folder: Path) -> None:
    """A BPE tokenizer whose characters are its vocabulary, of the class that is rebuilt."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *"abcdef"]
    tokenizer = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "LlamaTokenizer"
    path.write_text(json.dumps(config))


def unknown_kept(folder: Path, texts: list[str]) -> None:
    """Plain transformers makes of `folder` what is trained and scored here, unknown tokens too."""
    ours = load_tokenizer(folder)
    expected = ours(texts, return_offsets_mapping=True)
    assert any(ours.unk_token_id in ids for ids in expected["input_ids"])
    lost = AutoTokenizer.from_pretrained(folder)(texts, return_offsets_mapping=True)
    assert lost["input_ids"] != expected["input_ids"]
    assert keep_unknown_token(folder)
    kept = AutoTokenizer.from_pretrained(folder)
    again = kept(texts, return_offsets_mapping=True)
    assert again["input_ids"] == expected["input_ids"]
    assert again["offset_mapping"] == expected["offset_mapping"]
    assert tokenizer_sha256(kept) == tokenizer_sha256(ours)
    assert kept.decode(again["input_ids"][0]) == ours.decode(expected["input_ids"][0])
    assert not keep_unknown_token(folder), "nothing is left to mend"
    copy_files(folder, folder / "copied")
    assert tokenizer_sha256(load_tokenizer(folder / "copied")) == tokenizer_sha256(ours)


def test_files_of_a_tokenizer_that_loses_its_unknown_token_are_mended(tmp_path: Path) -> None:
    save_llama_without_bytes(tmp_path)
    (tmp_path / "copied").mkdir()
    unknown_kept(tmp_path, ["abc é def", "é", "<s>a é</s> b", "a  b"])


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_tinystories_files_are_mended(tmp_path: Path) -> None:
    copy_files(SHARED / "models/tinystories-656k", tmp_path)
    shutil.copy(SHARED / "models/tinystories-656k/config.json", tmp_path)
    (tmp_path / "copied").mkdir()
    unknown_kept(tmp_path, ["a = é b", "<|start_story|>Once\n\nupon # 9<|end_story|>", " two  é"])


def test_files_of_other_tokenizers_stay_as_they_are(tmp_path: Path) -> None:
    word_tokenizer("a", "b").save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not keep_unknown_token(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


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
