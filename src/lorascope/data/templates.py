"""How a conversation becomes text: one object for training and evaluation alike.

Special tokens stand in the text as their literal strings and nothing is added when tokenizing.
Blanks between a prompt and its completion belong to the completion, as lm-eval has it, so that
prompts end without whitespace and both tokenize a sample the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lorascope.config import TemplateKind
from lorascope.data.conversations import Conversation, Turn
from lorascope.data.rows import Segment
from lorascope.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Template:
    """A way to render, with the special tokens of one tokenizer."""

    kind: TemplateKind
    system: str | None
    """Given to every conversation without one."""
    bos: str
    """What a text starts with: empty where the tokenizer itself would add nothing."""
    eos: str
    chat_template: str | None = None
    """Source of the tokenizer's chat template, for kind=chat."""
    apply: Callable[[Messages, bool], str] | None = field(default=None, compare=False, repr=False)
    """For kind=chat: (messages, whether to open a reply) -> text."""

    @property
    def sha256(self) -> str:
        """Digest of all that decides the text."""
        parts = [self.kind.value, self.system, self.chat_template, self.bos, self.eos]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()

    def render(self, conversation: Conversation) -> list[Segment]:
        """The sample as stretches, read and trained in turn; the last one is trained and ends with
        the end-of-text token."""
        if conversation.rendered is not None:
            return self._finish(self._translate(conversation.rendered))
        if self.system and conversation.turns[0].role != "system":
            turns = (Turn("system", self.system), *conversation.turns)
            conversation = replace(conversation, turns=turns)
        return self._finish(RENDERERS[self.kind](self, conversation))

    def render_choices(self, conversation: Conversation) -> dict[str, str]:
        """Each choice -> its completion, the end-of-text token left out."""
        completions = {}
        for choice in conversation.choices or ():
            turns = (*conversation.turns[:-1], Turn("assistant", choice))
            segments = self.render(replace(conversation, turns=turns))
            completions[choice] = segments[-1].text.removesuffix(self.eos).rstrip()
        return completions

    def _translate(self, segments: tuple[Segment, ...]) -> list[Segment]:
        """Llama-2's literal tokens -> this tokenizer's own; text in other templates as it is."""
        if not segments[0].text.endswith("[/INST]"):
            return list(segments)
        return [
            Segment(s.text.replace("<s>", self.bos).replace("</s>", self.eos), s.trained)
            for s in segments
        ]

    def _finish(self, segments: list[Segment]) -> list[Segment]:
        """One start token, one end token, blanks before a reply moved into it."""
        first, last = segments[0], segments[-1]
        if not first.text.startswith(self.bos):
            segments = [Segment(self.bos + first.text, first.trained), *segments[1:]]
        # Llama-2 puts a blank before its end token; it is kept. Blanks after it are cut.
        ending = last.text if last.text.endswith(self.eos) else last.text.rstrip()
        segments[-1] = Segment(ending.removesuffix(self.eos) + self.eos, True)
        finished: list[Segment] = []
        for segment in segments:
            if segment.trained and finished and not finished[-1].trained:
                read = finished.pop().text
                kept = read.rstrip()
                finished += [Segment(kept, False), Segment(read[len(kept) :] + segment.text, True)]
            else:
                finished.append(segment)
        return finished


def make_template(
    kind: TemplateKind, system: str | None, tokenizer: PreTrainedTokenizerBase
) -> Template:
    """The template of this kind with this tokenizer's special tokens.

    Raises:
        DataError: the tokenizer has no end-of-text token.
        ConfigError: kind=chat, and the tokenizer has no chat template.
    """
    eos = tokenizer.eos_token
    if not eos:
        raise DataError(
            "The tokenizer has no end-of-text token (eos_token), so a model could never learn to "
            "stop. Set eos_token in the model's tokenizer_config.json."
        )
    bos = starting_text(tokenizer)
    if kind is not TemplateKind.chat:
        return Template(kind, system, bos, eos)
    source = getattr(tokenizer, "chat_template", None)
    if not source:
        raise ConfigError(
            "data.template", kind.value, "the model's tokenizer has no chat template",
            "Use data.template=plain or llama2, or the model's instruction-tuned variant.",
        )  # fmt: skip

    # A tokenizer may hold one template, or several by name.
    text = source if isinstance(source, str) else json.dumps(source, sort_keys=True)
    return Template(kind, system, bos, eos, text, _applier(tokenizer))


def _applier(tokenizer: PreTrainedTokenizerBase) -> Callable[[Messages, bool], str]:
    from jinja2 import TemplateError

    def apply(messages: Messages, open_reply: bool) -> str:
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=open_reply
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(
                f"The model's chat template refuses a conversation of {roles}: {error}. If it "
                "knows no system role, clear data.system; else use data.template=plain or llama2."
            ) from error
        return str(text)

    return apply


def starting_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """The begin-of-text token if the tokenizer adds it by itself, else nothing."""
    bos_id = tokenizer.bos_token_id
    added = tokenizer("a")["input_ids"][:1] == [bos_id]
    own = tokenizer("a", add_special_tokens=False)["input_ids"][:1] == [bos_id]
    return str(tokenizer.bos_token) if bos_id is not None and added and not own else ""


def _said(turn: Turn, eos: str) -> str:
    """A reply without an end token that its source wrote out."""
    return turn.content.rstrip().removesuffix(eos)


def _render_plain(template: Template, conversation: Conversation) -> list[Segment]:
    """The format's own wording; without one, `### Human:` and `### Assistant:` as in guanaco."""
    turns = conversation.turns
    system = f"{turns[0].content}\n\n" if turns[0].role == "system" else ""
    spoken = turns[1:] if system else turns
    segments = []
    for number, (question, reply) in enumerate(zip(spoken[::2], spoken[1::2], strict=True)):
        cued = f"### Human: {question.content}\n### Assistant:"
        prompt = cued if conversation.plain is None else conversation.plain
        lead = system if number == 0 else "\n"
        blank = "" if prompt[-1].isspace() or reply.content[0].isspace() else " "
        segments += [
            Segment(lead + prompt, False),
            Segment(blank + _said(reply, template.eos).rstrip() + template.eos, True),
        ]
    return segments


def _render_llama2(template: Template, conversation: Conversation) -> list[Segment]:
    """`<s>[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{user} [/INST] {answer} </s>`, turn by turn."""
    turns = conversation.turns
    has_system = turns[0].role == "system"
    system = f"<<SYS>>\n{turns[0].content}\n<</SYS>>\n\n" if has_system else ""
    spoken = turns[1:] if has_system else turns
    segments = []
    for number, (question, reply) in enumerate(zip(spoken[::2], spoken[1::2], strict=True)):
        lead = system if number == 0 else ""
        segments += [
            Segment(f"{template.bos}[INST] {lead}{question.content.strip()} [/INST]", False),
            Segment(f" {_said(reply, template.eos).strip()} {template.eos}", True),
        ]
    return segments


def _render_chat(template: Template, conversation: Conversation) -> list[Segment]:
    """The tokenizer's own chat template, cut at every reply by rendering its prefixes."""
    if template.apply is None:
        raise ValueError("a chat template needs `apply`: build it with make_template")
    messages = [{"role": t.role, "content": t.content.strip()} for t in conversation.turns]
    whole = template.apply(messages, False)
    segments, start = [], 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = template.apply(messages[:index], True)
        through = template.apply(messages[: index + 1], False).rstrip()
        if not (whole.startswith(through) and through.startswith(prompt.rstrip())):
            raise DataError(
                f"{conversation.place}: the model's chat template rewrites earlier turns, "
                "so replies cannot be found in the text. Use data.template=plain or llama2, or "
                "rows of a single turn."
            )
        cut = len(prompt.rstrip())
        segments += [Segment(whole[start:cut], False), Segment(whole[cut : len(through)], True)]
        start = len(through)
    return segments


RENDERERS: dict[TemplateKind, Callable[[Template, Conversation], list[Segment]]] = {
    TemplateKind.plain: _render_plain,
    TemplateKind.llama2: _render_llama2,
    TemplateKind.chat: _render_chat,
}
