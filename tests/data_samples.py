"""Tokenizers and provenance for the data tests."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lorascope.records import Provenance

SHARED = Path(__file__).parents[2] / "shared"
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
