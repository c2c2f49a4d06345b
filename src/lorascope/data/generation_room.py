"""Whether a model gets the room to write the answers that it is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    if max(prompts) + max_new_tokens > context_tokens:
        raise ConfigError(
            "evaluate.max_new_tokens", max_new_tokens,
            f"the longest prompt has {max(prompts)} tokens, and the model's context is "
            f"{context_tokens}",
            f"Use {context_tokens - max(prompts)} or less, or lower data.max_tokens.",
        )  # fmt: skip
    cut = sum(length > max_new_tokens for length in completions)
    told = (
        f"{cut} of {len(rows)} completions in validation and test are longer (the longest has "
        f"{max(completions)} tokens), so their answers cannot be reached"
    )
    if cut > TOLERATED_SHARE * len(rows):
        raise ConfigError(
            "evaluate.max_new_tokens", max_new_tokens, told,
            f"Use evaluate=solutions, or {max(completions)}.",
        )  # fmt: skip
    return f"evaluate.max_new_tokens={max_new_tokens}: {told}" if cut else None


def _length(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
