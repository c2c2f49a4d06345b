"""Tokenizers, a conversation and its rendering, provenance: for the data tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lorascope.config import DataConfig, TemplateKind
from lorascope.data.conversations import Conversation, Turn
from lorascope.data.prepare import prepare_data, prepare_row
from lorascope.data.rows import PreparedRow
from lorascope.data.templates import make_template
from lorascope.records import DataCard, Provenance

SHARED = Path(__file__).parents[3] / "shared"
NO_SHARED = "the folder shared/ with real rows and a real tokenizer does not lie beside this clone"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]


def letter_tokenizer(
    bos: bool = True, eos: str | AddedToken = "</s>", chat_template: str | None = None
) -> PreTrainedTokenizerFast:
    """One token a byte, special tokens apart: a token is trained if its letter is."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token=eos,
        unk_token="<unk>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def word_tokenizer(*words: str) -> PreTrainedTokenizerFast:
    """One token a listed word, `<unk>` for every other; nothing is added."""
    ids = {token: i for i, token in enumerate(["<unk>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", model_max_length=1000
    )


PROVENANCE = Provenance(
    git_commit=None,
    git_dirty=None,
    dvc_lock_sha256=None,
    versions={},
    python="3",
    platform="test",
    device="cpu",
    threads=1,
    created_utc="2026-01-01T00:00:00+00:00",
)


TWO_TURNS = Conversation(
    (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
)


def prepared(
    conversation: Conversation,
    kind: TemplateKind = TemplateKind.plain,
    system: str | None = None,
    eos: str = "</s>",
    bos: bool = True,
) -> PreparedRow:
    tokenizer = letter_tokenizer(bos, eos, CHATML if kind is TemplateKind.chat else None)
    config = DataConfig(name="x", template=kind)
    return prepare_row(conversation, make_template(kind, system, tokenizer), config)


def trained(row: PreparedRow) -> list[str]:
    return [segment.text for segment in row.segments if segment.trained]


LONG = 200


def write_splits(root: Path, **splits: list[dict[str, Any]]) -> DataConfig:
    """One .jsonl a split, and the config that names them."""
    for split, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{split}.jsonl").write_text(text, encoding="utf-8")
    names: dict[str, Any] = {split: f"{split}.jsonl" for split in splits}
    return DataConfig(name="x", **names)


def small(root: Path) -> DataConfig:
    """Three train rows (one twice, one too long), one validation row, one test row."""
    rows = [
        {"prompt": "ab", "completion": "c"},
        {"prompt": "ab", "completion": "c"},
        {"prompt": "def", "completion": "gh"},
        {"prompt": "long", "completion": "i" * LONG},
    ]
    config = write_splits(
        root,
        train=rows,
        validation=[{"prompt": "v", "completion": "1"}],
        test=[{"prompt": "t", "completion": "2"}],
    )
    return replace(config, max_tokens=LONG)


def prepare(
    config: DataConfig, root: Path, tokenizer: PreTrainedTokenizerFast, context: int = 4096
) -> DataCard:
    folder = root / "out"
    folder.mkdir(exist_ok=True)
    return prepare_data(config, "letters", tokenizer, context, folder, root, PROVENANCE)
