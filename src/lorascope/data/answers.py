"""Answers: what counts as right, the answer that each row gives, and whether a model can write it.

An answer is found in a text the same way in the data and in what a model writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lorascope.config import PAIRS, DataConfig, Format, Scoring, TemplateKind
from lorascope.data.conversations import Conversation
from lorascope.data.rows import PreparedRow
from lorascope.data.templates import Template
from lorascope.data.tokenization import Tokenizer
from lorascope.data.unfit_rows import RowError
from lorascope.errors import ConfigError

TOLERATED_SHARE = 0.05
"""Share of completions that may be longer than evaluate.max_new_tokens."""


def find_answer(pattern: str, text: str) -> str | None:
    """The text of the pattern's group at its first match in `text`, without outer blanks."""
    match = re.search(pattern, text)
    return match.group(1).strip() if match and match.group(1) is not None else None


def is_right(generation: str, answer: str, pattern: str | None) -> bool:
    """Whether a generation gives the answer.

    Without a pattern: equal but for surrounding whitespace. With one: its group is taken from the
    *first* match in the generation, because a model that goes on after its answer makes up further
    questions; no match is wrong. The answer itself may be the group alone or a text that holds it.
    Commas and trailing dots are dropped on both sides: "1,234." is 1234.
    """
    if pattern is None:
        return generation.strip() == answer.strip()
    found, wanted = find_answer(pattern, generation), find_answer(pattern, answer)
    return found is not None and _bare(found) == _bare(answer if wanted is None else wanted)


def _bare(text: str) -> str:
    return text.strip().replace(",", "").rstrip(".").strip()


def check_settings(config: DataConfig) -> None:
    """Raise ConfigError for data settings that cannot go together."""
    is_whole = config.format in (Format.rendered, Format.text)
    if is_whole and config.template is not TemplateKind.plain:
        raise ConfigError(
            "data.template", config.template.value,
            f"rows of format={config.format.value} stand already as a model reads them",
            "Leave data.template at plain.",
        )  # fmt: skip
    if is_whole and config.system:
        raise ConfigError(
            "data.system", config.system,
            f"rows of format={config.format.value} cannot be given a system message",
            "Clear data.system.",
        )  # fmt: skip
    if config.format is Format.text and config.scoring is not Scoring.loss:
        raise ConfigError(
            "data.scoring", config.scoring.value, "rows of format=text ask nothing",
            "Set data.scoring=loss.",
        )  # fmt: skip
    _check_pattern(config)


def _check_pattern(config: DataConfig) -> None:
    pattern = config.answer_pattern
    if pattern is None:
        return
    if config.scoring is not Scoring.answer:
        raise ConfigError(
            "data.answer_pattern", pattern, f"data.scoring={config.scoring.value} does not read it",
            "Set data.scoring=answer, or clear the pattern.",
        )  # fmt: skip
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(
            "data.answer_pattern", pattern, f"not a regular expression ({error})", "Repair it."
        ) from error
    if groups != 1:
        raise ConfigError(
            "data.answer_pattern", pattern, f"has {groups} groups, but needs exactly one",
            "Put parentheses around the answer, and (?:...) around the rest.",
        )  # fmt: skip


def answer_of(conversation: Conversation, config: DataConfig) -> str | None:
    """The answer that a generation is compared with, before rendering; None for scoring=loss
    and preference. RowError where the row cannot be scored as the config asks."""
    if config.scoring is Scoring.choices:
        if conversation.choices is None:
            raise RowError(
                conversation.place, "no choices",
                "no choices, which data.scoring=choices needs. Add choices and answer to the row, "
                "or set data.scoring=loss.",
            )  # fmt: skip
        return conversation.answer
    if config.scoring is Scoring.preference and conversation.rejected is None:
        raise RowError(
            conversation.place, "no rejected reply",
            "no rejected reply, which data.scoring=preference needs. Take a data.format with pairs "
            f"({', '.join(PAIRS)}), or set data.scoring=loss.",
        )  # fmt: skip
    if config.scoring in (Scoring.loss, Scoring.preference, Scoring.classes):
        return None
    if config.answer_pattern is None:
        return (conversation.answer or conversation.completion).strip()
    answer = find_answer(config.answer_pattern, conversation.completion)
    if not answer:
        raise RowError(
            conversation.place, "answer_pattern finds no answer",
            f"data.answer_pattern={config.answer_pattern!r} finds no answer in "
            f"{conversation.completion[-80:]!r}. Repair the row or the pattern.",
        )  # fmt: skip
    return answer


def written_answer(conversation: Conversation, template: Template, config: DataConfig) -> str:
    """The answer that a generation must give to be right: taken from the reply as the template
    writes it, and read as a generation is read; RowError where nothing is left of it. Text that a
    template adds to replies (an empty thinking part) thus stands on both sides: a model that writes
    what it was trained on is right."""
    pattern = config.answer_pattern
    said = conversation.answer if pattern is None else None
    text = template.read_back(template.written(conversation, said or conversation.completion))
    answer = text if pattern is None else find_answer(pattern, text)
    if not answer:
        raise RowError(
            conversation.place, "no answer in the rendered reply",
            f"data.answer_pattern={pattern!r} finds no answer in the reply as the template writes "
            f"it and as it is read, without special tokens: {text[-80:]!r}. Repair the row or the "
            "pattern.",
        )  # fmt: skip
    return answer


def require_room(
    rows: Sequence[PreparedRow],
    tokenizer: Tokenizer,
    max_new_tokens: int,
    context_tokens: int,
) -> str | None:
    """Judge evaluate.max_new_tokens against the rows' own completions, end-of-text included: a
    warning where a few completions are longer, None where all fit.

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
    problem = (
        f"{cut} of {len(rows)} completions in validation and test are longer (the longest has "
        f"{max(completions)} tokens), so their answers cannot be reached"
    )
    if cut > TOLERATED_SHARE * len(rows):
        raise ConfigError(
            "evaluate.max_new_tokens", max_new_tokens, problem,
            _remedy(completions, room),
        )  # fmt: skip
    return f"evaluate.max_new_tokens={max_new_tokens}: {problem}" if cut else None


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
    rows: Sequence[PreparedRow], tokenizer: Tokenizer, pattern: str | None
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


def _length(text: str, tokenizer: Tokenizer) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
