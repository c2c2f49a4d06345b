"""Whether a model can write the answers that it is scored on: room, and tokens for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorascope.data.answers import is_right
from lorascope.data.rows import PreparedRow
from lorascope.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOLERATED_SHARE = 0.05


def require_room(
    rows: Sequence[PreparedRow],
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    context_tokens: int,
) -> str | None:
    """Judge evaluate.max_new_tokens against the rows' own completions, end-of-text included.

    Returns:
        A warning where a few completions are longer, None where all fit.

    Raises:
        ConfigError: more than 5 % of the completions are longer, so that right answers would count
            as wrong; or a prompt leaves less than max_new_tokens of the context.
    """
    prompts = [_length(row.prompt, tokenizer) for row in rows]
    completions = [_length(row.completion, tokenizer) for row in rows]
    room = context_tokens - max(prompts)
    if max_new_tokens > room:
        raise ConfigError(
            "evaluate.max_new_tokens", max_new_tokens,
            f"{sum(length + max_new_tokens > context_tokens for length in prompts)} of {len(rows)} "
            f"prompts in validation and test leave less of the context of {context_tokens} tokens "
            f"(the longest prompt has {max(prompts)} tokens)",
            _shorter(completions, room, context_tokens - max_new_tokens),
        )  # fmt: skip
    cut = sum(length > max_new_tokens for length in completions)
    told = (
        f"{cut} of {len(rows)} completions in validation and test are longer (the longest has "
        f"{max(completions)} tokens), so their answers cannot be reached"
    )
    if cut > TOLERATED_SHARE * len(rows):
        raise ConfigError(
            "evaluate.max_new_tokens", max_new_tokens, told,
            _remedy(completions, room),
        )  # fmt: skip
    return f"evaluate.max_new_tokens={max_new_tokens}: {told}" if cut else None


def _shorter(completions: Sequence[int], room: int, longest_sample: int) -> str:
    """A setting under which every prompt leaves room."""
    dropping = f"data.max_tokens={longest_sample}, which drops longer samples"
    if sum(length > room for length in completions) <= TOLERATED_SHARE * len(completions):
        return f"Use {room} or less, or {dropping}."
    return f"Use {dropping}; less than the answers need would be no help."


def _remedy(completions: Sequence[int], room: int) -> str:
    """The smallest setting that reaches all answers, or as many as the context lets it."""
    where = "in its file in conf/evaluate, which params.yaml names"
    if max(completions) <= room:
        return f"Set it to {max(completions)}, {where}."
    if sum(length > room for length in completions) <= TOLERATED_SHARE * len(completions):
        return f"Set it to {room}, {where}: the longest prompt leaves no more of the context."
    return (
        f"The longest prompt leaves {room} tokens of the context: lower data.max_tokens, so that "
        "such rows are dropped, or use a model with a longer context."
    )


def unreadable_answers(
    rows: Sequence[PreparedRow], tokenizer: PreTrainedTokenizerBase, pattern: str | None
) -> list[PreparedRow]:
    """Rows whose own trained completion, read back from its tokens as a generation is, would count
    as wrong: no model could be right on them."""
    encoded = tokenizer([row.completion for row in rows], add_special_tokens=False)
    read = tokenizer.batch_decode(encoded["input_ids"], skip_special_tokens=True)
    return [
        row
        for row, text in zip(rows, read, strict=True)
        if row.answer is not None and not is_right(text, row.answer, pattern)
    ]


def _length(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
