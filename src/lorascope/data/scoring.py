"""What counts as right: settings that go together, and the answer that each row gives."""

from __future__ import annotations

import re

from lorascope.config import DataConfig, Format, Scoring, TemplateKind
from lorascope.data.answers import find_answer
from lorascope.data.conversations import Conversation
from lorascope.errors import ConfigError, DataError


def check_settings(config: DataConfig) -> None:
    """Raise ConfigError for data settings that cannot go together."""
    if config.format is Format.rendered:
        if config.template is not TemplateKind.plain:
            raise ConfigError(
                "data.template", config.template.value, "rows of format=rendered stand in a "
                "template already", "Leave data.template at plain.",
            )  # fmt: skip
        if config.system:
            raise ConfigError(
                "data.system", config.system, "rows of format=rendered cannot be given a system "
                "message", "Clear data.system.",
            )  # fmt: skip
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
    """What an answer is compared with, before rendering; None for scoring=loss.

    Raises:
        DataError: the row cannot be scored as the config asks.
    """
    if config.scoring is Scoring.choices:
        if conversation.choices is None:
            raise DataError(
                f"{conversation.place}: no choices, which data.scoring=choices needs. Add choices "
                "and answer to the row, or set data.scoring=loss."
            )
        return conversation.answer
    if config.scoring is Scoring.loss:
        return None
    if config.answer_pattern is None:
        return (conversation.answer or conversation.completion).strip()
    answer = find_answer(config.answer_pattern, conversation.completion)
    if not answer:
        raise DataError(
            f"{conversation.place}: data.answer_pattern={config.answer_pattern!r} finds no answer "
            f"in {conversation.completion[-80:]!r}. Repair the row or the pattern."
        )
    return answer
