"""A tokenizer's own chat template: on a fixed day, and cut where replies begin and end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from lorascope.data.rows import Segment
from lorascope.data.tokenization import Tokenizer
from lorascope.data.unfit_rows import RowError
from lorascope.errors import ConfigError, clause

Messages = list[dict[str, str]]
TODAY = "strftime_now"
"""The function by which a template asks for the date; transformers offers no other clock."""


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template, compiled."""

    source: str
    """Text of the template; where there are several, all of them by name."""
    date: str | None
    """Date (YYYY-MM-DD) that the template gets as today's; None where it asks for none."""
    marks: tuple[str, ...]
    """Tokens that the tokenizer never splits, such as <|im_end|> and <think>."""
    apply: Callable[[Messages, bool], str] = field(compare=False, repr=False)
    """(messages, whether to open a reply) -> text."""

    def cut(self, messages: Messages, place: str) -> list[Segment]:
        """The rendered conversation as segments; its replies are trained. RowError where the
        template refuses the conversation, or its last reply cannot be found.

        A reply ends where the text rendered up to it ends, but for an end token that a template
        writes behind the last turn only (Phi-3). What a template writes otherwise once further
        turns follow (Qwen3 drops the thinking part of replies that are past) is read, not trained:
        a model that answers never sees it so.
        """
        whole = self._render(messages, False, place)
        segments, start, span = [], 0, None
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            span = self._span(whole, messages[: index + 1], place)
            if span:
                begin, end = span
                segments += [Segment(whole[start:begin], False), Segment(whole[begin:end], True)]
                start = end
        if span is None:
            raise RowError(
                place, "its reply cannot be found in what the chat template writes",
                "the model's chat template rewrites earlier turns when it adds a reply, so that "
                "the reply cannot be found in the text. Use data.template=plain or llama2, or "
                "rows of a single turn.",
            )  # fmt: skip
        return segments

    def unwritten_opening(self) -> str:
        """Text with which the template opens a reply at inference, but which it does not write
        before replies that it is given: DeepSeek-R1's <think>. Empty for most templates."""
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        try:
            opened = self._render(messages[:1], True, "").rstrip()
            span = self._span(self._render(messages, False, ""), messages, "")
        except RowError:
            return ""
        return opened[span[0] :].strip() if span else ""

    def _span(self, whole: str, messages: Messages, place: str) -> tuple[int, int] | None:
        """Start and end in `whole` of the last of these messages, a reply; None where `whole` has
        another text for it than these messages end with."""
        through = self._prefix(whole, self._render(messages, False, place))
        opened = self._render(messages[:-1], True, place).rstrip()
        if through is None:
            return None
        if through.startswith(opened):
            return len(opened), len(through)
        closed = self._prefix(through, self._render(messages[:-1], False, place))
        begin = self._before_mark(opened, _shared_length(opened, through))
        if closed is None or begin <= len(closed):
            return None
        return len(opened[:begin].rstrip()), len(through)

    def _prefix(self, whole: str, text: str) -> str | None:
        """`text` without the marks and blanks at its end that `whole` does not have there."""
        text = text.rstrip()
        while not whole.startswith(text):
            mark = next((mark for mark in self.marks if text.endswith(mark)), None)
            if mark is None:
                return None
            text = text.removesuffix(mark).rstrip()
        return text

    def _before_mark(self, text: str, position: int) -> int:
        """`position`, or the start of the mark that it would cut in two."""
        for mark in self.marks:
            start = text.find(mark, max(0, position - len(mark) + 1))
            if 0 <= start < position < start + len(mark):
                return start
        return position

    def _render(self, messages: Messages, open_reply: bool, place: str) -> str:
        from jinja2 import TemplateError

        try:
            return self.apply(messages, open_reply)
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise RowError(
                place,
                "refused by the chat template",
                f"the model's chat template refuses a conversation of {roles}: {clause(error)}. "
                "If it knows no system role, clear data.system; else use data.template=plain or "
                "llama2.",
            ) from error


def make_chat_template(tokenizer: Tokenizer, date: str) -> ChatTemplate:
    """The tokenizer's chat template, which gets `date` (YYYY-MM-DD) as today's; ConfigError where
    there is none, several without a default, or it is not valid Jinja."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    held = getattr(tokenizer, "chat_template", None)
    if not held:
        raise _unusable("the model's tokenizer has no chat template")
    try:
        source = tokenizer.get_chat_template()
        _compile_jinja_template(source)
    except (TemplateError, ValueError) as error:
        raise _unusable(f"the model's chat template cannot be used ({error})") from error

    midnight = datetime.fromisoformat(date)

    def apply(messages: Messages, open_reply: bool) -> str:
        # transformers compiles each source once, and passes variables on as plain data: its clock
        # can be set in the compiled template only.
        _compile_jinja_template(source).globals[TODAY] = midnight.strftime
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=open_reply
        )
        return str(text)

    return ChatTemplate(
        source=held if isinstance(held, str) else json.dumps(held, sort_keys=True),
        date=date if TODAY in source else None,
        marks=longest_first(tokenizer.get_added_vocab()),
        apply=apply,
    )


def _shared_length(first: str, second: str) -> int:
    """Number of characters that two texts begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def longest_first(marks: Iterable[str]) -> tuple[str, ...]:
    """Marks, the longest first, so that of two marks that end alike the whole one is found."""
    return tuple(sorted(marks, key=lambda mark: (-len(mark), mark)))


def _unusable(problem: str) -> ConfigError:
    return ConfigError(
        "data.template", "chat", problem,
        "Use data.template=plain or llama2, or the model's instruction-tuned variant.",
    )  # fmt: skip
