"""Tokens: a prepared row's ids and labels, and the tokenizer that makes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lorascope.data.rows import PreparedRow
from lorascope.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokenizer: TypeAlias = "PreTrainedTokenizerBase"
IGNORED_LABEL = -100
TokenIds = int | list[int] | None
"""The form of `eos_token_id` in config.json and generation_config.json."""
ROWS_A_CALL = 1000
"""Rows tokenized in one call; a call for all would hold the offsets of all their tokens."""


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer saved in `folder`, its unknown token in working order; else ModelError."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}: no usable tokenizer ({error}). Copy its tokenizer files there again; for a "
            "folder that lorascope made, run `lorascope prepare-base` again."
        ) from error
    restore_unknown_token(tokenizer)
    return tokenizer


def restore_unknown_token(tokenizer: Any) -> bool:
    """Undo what transformers 5 does to Llama tokenizers without byte tokens, and return whether it
    was needed.

    It rebuilds the BPE model without the unknown token that tokenizer.json names, and counts on
    byte fallback. Where the vocabulary holds no byte tokens either (TinyStories-656K), unknown
    characters then vanish from the ids without a trace, and all offsets behind them are wrong.
    """
    if not getattr(tokenizer, "is_fast", False):
        return False
    model = tokenizer.backend_tokenizer.model
    lost = getattr(model, "byte_fallback", False) and getattr(model, "unk_token", "") is None
    if not lost or not tokenizer.unk_token or "<0x00>" in tokenizer.get_vocab():
        return False
    model.unk_token = tokenizer.unk_token
    return True


def tokenize_row(
    row: PreparedRow, tokenizer: Tokenizer, train_on_prompt: bool = False
) -> tuple[list[int], list[int]]:
    """`tokenize_rows` for one row."""
    return next(tokenize_rows([row], tokenizer, train_on_prompt))


def tokenize_rows(
    rows: Sequence[PreparedRow], tokenizer: Tokenizer, train_on_prompt: bool = False
) -> Iterator[tuple[list[int], list[int]]]:
    """(input_ids, labels) of each row, both of length [tokens]; labels are -100 where nothing is
    trained.

    The whole text is tokenized at once. A token is trained if it starts inside a trained segment:
    one that reaches from a prompt into its completion belongs to the prompt, just as it does for
    lm-eval, which scores what joint encoding adds behind the encoded prompt.
    """
    for start in range(0, len(rows), ROWS_A_CALL):
        chunk = rows[start : start + ROWS_A_CALL]
        encoded = tokenizer(
            [row.text for row in chunk], add_special_tokens=False, return_offsets_mapping=True
        )
        for row, ids, offsets in zip(
            chunk, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            yield list(ids), list(ids) if train_on_prompt else _labels(row, ids, offsets)


def _labels(row: PreparedRow, ids: list[int], offsets: list[tuple[int, int]]) -> list[int]:
    ends = list(accumulate(len(segment.text) for segment in row.segments))
    labels, current = [], 0
    for token, (start, _) in zip(ids, offsets, strict=True):
        while current < len(ends) - 1 and start >= ends[current]:
            current += 1
        labels.append(token if row.segments[current].trained else IGNORED_LABEL)
    return labels


def require_fast(tokenizer: Tokenizer) -> None:
    """Raise unless the tokenizer can say which characters a token came from."""
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} is a slow tokenizer without character offsets, so "
            "completions cannot be found among its tokens. Use a model with a tokenizer.json."
        )


def require_known_tokens(
    rows: Sequence[PreparedRow], tokenizer: Tokenizer, vocabulary: int
) -> None:
    """Raise DataError where a row holds a token that the model has no embedding for; that has as
    many rows as `vocabulary`.

    Tokens may be added to a tokenizer without resizing the embeddings. Those that no row uses, a
    padding token among them, do no harm.
    """
    outside = {id_: token for token, id_ in tokenizer.get_vocab().items() if id_ >= vocabulary}
    if not outside:
        return
    for row in rows:
        texts = [row.text, *(row.choices or ())]
        for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            used = sorted(set(ids) & outside.keys())
            if used:
                raise DataError(
                    f"item {row.item}: the token {outside[used[0]]!r} has the id {used[0]}, but "
                    f"the model knows {vocabulary} tokens, so it has no embedding for it. Likely "
                    "the tokenizer's chat template needs tokens that the model was not trained "
                    "with: use another data.template, or a model with resized, trained embeddings."
                )


def pad_token_id(tokenizer: Tokenizer, vocabulary: int) -> int:
    """Id of a token to pad with: the tokenizer's own, or end-of-text where the embedding, of
    `vocabulary` rows, has none for it. Padding is masked and carries no label, but is looked up."""
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    if pad is not None and pad < vocabulary:
        return int(pad)
    # Encoders' tokenizers may have no end of text: then any token will do.
    return 0 if end is None else int(end)


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """Digest of all that decides the ids: the whole fast tokenizer and the special tokens' names,
    but no truncation and padding, which a call may have left behind."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.update(truncation=None, padding=None)
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    text = json.dumps([state, special], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def as_token_ids(value: TokenIds) -> list[int]:
    """One, several or no token ids, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def stop_token_ids(end_of_text_id: int, *model_stops: TokenIds) -> list[int]:
    """The model's own stop tokens in their order; before them the tokenizer's end-of-text token,
    which trained completions end with, where it is not among them.

    The two may differ: Qwen2.5's bases stop at <|endoftext|>, their templates at <|im_end|>.
    Scoring and merging read this alike, so that a merged model stops where it was scored to.
    """
    stops = list(dict.fromkeys(token for value in model_stops for token in as_token_ids(value)))
    return stops if end_of_text_id in stops else [end_of_text_id, *stops]
