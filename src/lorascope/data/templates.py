"""Templates: ways from a conversation to text, the same for training and evaluation.

Special tokens stand in the text as their literal strings and nothing is added when tokenizing.
Blanks between a prompt and its completion belong to the completion, as lm-eval has it, so that
prompts end without whitespace and both tokenize a sample the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lorascope.config import DataConfig, TemplateKind
from lorascope.data.chat_templates import ChatTemplate, longest_first, make_chat_template
from lorascope.data.conversations import Conversation, Turn, digest_of
from lorascope.data.rows import Segment
from lorascope.data.tokenization import Tokenizer
from lorascope.data.unfit_rows import RowError
from lorascope.errors import DataError


@dataclass(frozen=True)
class Template:
    """A way to render, with the special tokens of one tokenizer."""

    kind: TemplateKind
    system: str | None
    """System message for every conversation that has none."""
    bos: str
    """Token that a text starts with; empty where the tokenizer itself would add none."""
    eos: str
    chat: ChatTemplate | None = None
    """The tokenizer's chat template, for kind=chat."""
    special_tokens: tuple[str, ...] = ()
    """Tokens that the tokenizer reads as control tokens, longest first."""

    @property
    def sha256(self) -> str:
        """Digest of all that decides the text."""
        source = self.chat.source if self.chat else None
        parts = [self.kind.value, self.system, source, self.bos, self.eos]
        if self.chat and self.chat.date:
            parts.append(self.chat.date)
        return digest_of(parts)

    def render(self, conversation: Conversation) -> list[Segment]:
        """The sample as stretches, read and trained in turn; the last one is trained and ends with
        the end-of-text token. RowError where there is no reply, or a chat template refuses."""
        if conversation.rendered is not None:
            return self._finish(self._translate(conversation.rendered))
        _require_replies(conversation, self.eos)
        if self.system and conversation.turns[0].role != "system":
            turns = (Turn("system", self.system), *conversation.turns)
            conversation = replace(conversation, turns=turns)
        return self._finish(RENDERERS[self.kind](self, conversation))

    def render_choices(self, conversation: Conversation) -> dict[str, str]:
        """Choice -> its completion, without the end-of-text token."""
        return {
            choice: self.written(conversation, choice).rstrip()
            for choice in conversation.choices or ()
        }

    def written(self, conversation: Conversation, reply: str) -> str:
        """`reply` as the template writes it in place of the last one, with all that it adds (a
        thinking part), without the end-of-text token."""
        turns = (*conversation.turns[:-1], Turn("assistant", reply))
        segments = self.render(replace(conversation, turns=turns))
        return segments[-1].text.removesuffix(self.eos)

    def read_back(self, text: str) -> str:
        """A generated text without special tokens and outer blanks."""
        for token in self.special_tokens:
            text = text.replace(token, "")
        return text.strip()

    def _translate(self, segments: tuple[Segment, ...]) -> list[Segment]:
        """Llama-2's literal tokens -> this tokenizer's own; text in other templates as it is."""
        if not segments[0].text.endswith("[/INST]"):
            return list(segments)
        return [
            Segment(s.text.replace("<s>", self.bos).replace("</s>", self.eos), s.trained)
            for s in segments
        ]

    def _finish(self, segments: list[Segment]) -> list[Segment]:
        """Segments with one start and one end token, and blanks before a reply moved into it."""
        first, last = segments[0], segments[-1]
        if not first.text.lstrip().startswith(self.bos):
            # Of a text that is trained whole, nothing precedes the start token.
            start = [Segment(self.bos, False)] if first.trained else []
            opening = first if first.trained else Segment(self.bos + first.text, False)
            segments = [*start, opening, *segments[1:]]
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
    kind: TemplateKind,
    system: str | None,
    tokenizer: Tokenizer,
    date: str = DataConfig.date,
) -> Template:
    """The template of this kind with this tokenizer's special tokens; `date` is what a chat
    template gets as today's. DataError or ConfigError where the tokenizer has no end-of-text token,
    or no usable chat template."""
    eos = tokenizer.eos_token
    if not eos:
        raise DataError(
            "The tokenizer has no end-of-text token (eos_token), so a model could never learn to "
            "stop. Set eos_token in the model's tokenizer_config.json."
        )
    bos = starting_text(tokenizer)
    chat = make_chat_template(tokenizer, date) if kind is TemplateKind.chat else None
    return Template(kind, system, bos, eos, chat, special_tokens_of(tokenizer))


def no_template(tokenizer: Tokenizer) -> Template:
    """What stands around texts that are read as they are, with the special tokens that a tokenizer
    itself puts there: nothing, and no end-of-text token is needed."""
    return Template(TemplateKind.plain, None, "", "", None, special_tokens_of(tokenizer))


def special_tokens_of(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Tokens that the tokenizer reads as control tokens wherever they stand, and leaves out when it
    reads a generation back; longest first."""
    added = [str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special]
    return longest_first({*added, *map(str, tokenizer.all_special_tokens)})


def starting_text(tokenizer: Tokenizer) -> str:
    """The begin-of-text token if the tokenizer adds it by itself, else nothing."""
    bos_id = tokenizer.bos_token_id
    added = tokenizer("a")["input_ids"][:1] == [bos_id]
    unasked = tokenizer("a", add_special_tokens=False)["input_ids"][:1] == [bos_id]
    return str(tokenizer.bos_token) if bos_id is not None and added and not unasked else ""


def _require_replies(conversation: Conversation, eos: str) -> None:
    for turn in conversation.turns:
        if turn.role == "assistant" and not turn_text(turn, eos).strip():
            raise RowError(
                conversation.place, "no reply but the end-of-text token",
                f"the reply is {turn.content!r}, the end-of-text token alone, so there is nothing "
                "to train on. Fill in or remove this row.",
            )  # fmt: skip


def turn_text(turn: Turn, eos: str) -> str:
    """A turn's text, for a reply without the end token that its source wrote out."""
    reply = turn.role == "assistant"
    return turn.content.rstrip().removesuffix(eos) if reply else turn.content


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
            Segment(blank + turn_text(reply, template.eos).rstrip() + template.eos, True),
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
            Segment(f" {turn_text(reply, template.eos).strip()} {template.eos}", True),
        ]
    return segments


def _render_chat(template: Template, conversation: Conversation) -> list[Segment]:
    """The tokenizer's own chat template, cut at every reply by rendering its prefixes."""
    if template.chat is None:
        raise ValueError("a chat template is needed: build the template with make_template")
    messages = [
        {"role": turn.role, "content": turn_text(turn, template.eos).strip()}
        for turn in conversation.turns
    ]
    return template.chat.cut(messages, conversation.place)


RENDERERS: dict[TemplateKind, Callable[[Template, Conversation], list[Segment]]] = {
    TemplateKind.plain: _render_plain,
    TemplateKind.llama2: _render_llama2,
    TemplateKind.chat: _render_chat,
}
