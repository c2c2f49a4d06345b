"""A question that no row asks, written as training wrote those of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from lorascope.config import DataConfig, Format, TemplateKind
from lorascope.data.conversations import Conversation, Turn
from lorascope.data.files import RawRow
from lorascope.data.formats import to_conversation
from lorascope.data.rows import PreparedRow
from lorascope.data.templates import Template
from lorascope.errors import ConfigError

REPLY = "reply"
"""What stands where a model shall write: templates render no question without a reply."""


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _pair(question: str, reply: str) -> list[dict[str, str]]:
    return [_message("user", question), _message("assistant", reply)]


OTHER = "other"
"""A rejected reply."""
ASKING: Mapping[Format, Callable[[str], dict[str, object]]] = {
    Format.prompt_completion: lambda text: {"prompt": text, "completion": REPLY},
    Format.question_answer: lambda text: {"question": text, "answer": REPLY},
    Format.source_target: lambda text: {"text": f"{text} || {REPLY}"},
    Format.alpaca: lambda text: {"instruction": text, "output": REPLY},
    Format.chat: lambda text: {"messages": _pair(text, REPLY)},
    Format.turns: lambda text: {"text": f"### Human: {text}\n### Assistant: {REPLY}"},
    Format.rendered: lambda text: {"text": f"{text}{REPLY}"},
    Format.pairs: lambda text: {"prompt": text, "chosen": REPLY, "rejected": OTHER},
    Format.alpaca_pairs: lambda text: {"instruction": text, "chosen": REPLY, "rejected": OTHER},
    Format.chat_pairs: lambda text: {"chosen": _pair(text, REPLY), "rejected": _pair(text, OTHER)},
}
"""Format -> a row that asks `text`. Formats without a question to answer are not here."""


def asked_row(
    question: str, config: DataConfig, template: Template, spoken: Sequence[Turn] = ()
) -> PreparedRow:
    """`question` as a prepared row, whose prompt a model shall go on from.

    Args:
        spoken: former questions and answers in turn, for data that `remembers`.

    Raises:
        ConfigError: the data has no prompt, or the question does not fit its format.
        RowError: a chat template refuses it.
    """
    asking = ASKING.get(config.format)
    if asking is None:
        raise ConfigError(
            "data.format", config.format.value, "its rows hold no prompt that is answered in words",
            "`lorascope evaluate` scores what is trained on it.",
        )  # fmt: skip
    if not question.strip():
        raise ConfigError("prompt", question, "nothing is asked", 'Write prompt="...".')
    conversation = to_conversation(RawRow(asking(question), "prompt"), config.format)
    if spoken:
        conversation = replace(conversation, turns=(*spoken, *conversation.turns), plain=None)
    segments = template.render(conversation)
    prompt, completion = "".join(s.text for s in segments[:-1]), segments[-1].text
    if config.format is Format.rendered and not completion.strip().startswith(REPLY):
        raise ConfigError(
            "prompt", question, "it does not end with a mark that opens a reply, and rows of "
            "format=rendered are in a template already",
            "Write it as a row stands in the data, up to the reply.",
        )  # fmt: skip
    return PreparedRow("", segments, prompt, completion)


def remembers(config: DataConfig, template: Template) -> bool:
    """Whether a prompt can hold former turns: what has a wording of its own for one question, and
    what is rendered already, cannot."""
    if config.format is Format.rendered:
        return False
    worded: Conversation = to_conversation(
        RawRow(ASKING[config.format]("a"), "prompt"), config.format
    )
    return template.kind is not TemplateKind.plain or worded.plain is None
