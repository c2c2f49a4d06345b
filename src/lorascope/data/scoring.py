"""What counts as right: settings that go together, and the answer that each row gives."""

from __future__ import annotations

import re

from lorascope.config import DataConfig, Format, Scoring, TemplateKind
from lorascope.data.answers import find_answer
from lorascope.data.conversations import Conversation
from lorascope.data.templates import Template
from lorascope.data.unfit_rows import RowError
from lorascope.errors import ConfigError


def check_settings(config: DataConfig) -> None:
    """Raise ConfigError for data settings that cannot go together."""
    _check_rendered(config)
    _check_pattern(config)


def _check_rendered(config: DataConfig) -> None:
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
    """What an answer is compared with, before rendering; None for scoring=loss.

    Raises:
        RowError: the row cannot be scored as the config asks.
    """
    if config.scoring is Scoring.choices:
        if conversation.choices is None:
            raise RowError(
                conversation.place,
                "no choices",
                "no choices, which data.scoring=choices needs. Add choices and answer to the row, "
                "or set data.scoring=loss.",
            )
        return conversation.answer
    if config.scoring is Scoring.loss:
        return None
    if config.answer_pattern is None:
        return (conversation.answer or conversation.completion).strip()
    answer = find_answer(config.answer_pattern, conversation.completion)
    if not answer:
        raise RowError(
            conversation.place,
            "answer_pattern finds no answer",
            f"data.answer_pattern={config.answer_pattern!r} finds no answer in "
            f"{conversation.completion[-80:]!r}. Repair the row or the pattern.",
        )
    return answer


def written_answer(conversation: Conversation, template: Template, config: DataConfig) -> str:
    """What a generation must say to be right: taken from the reply as the template writes it, and
    read as a generation is read. What a template adds to replies (an empty thinking part) thus
    stands on both sides: a model that writes what it was trained on is right.

    Raises:
        RowError: nothing is left of the answer.
    """
    pattern = config.answer_pattern
    said = conversation.answer if pattern is None else None
    text = template.read_back(template.written(conversation, said or conversation.completion))
    answer = text if pattern is None else find_answer(pattern, text)
    if not answer:
        raise RowError(
            conversation.place,
            "no answer in the rendered reply",
            f"data.answer_pattern={pattern!r} finds no answer in the reply as the template writes "
            f"it and as it is read, without special tokens: {text[-80:]!r}. Repair the row or the "
            "pattern.",
        )
    return answer
