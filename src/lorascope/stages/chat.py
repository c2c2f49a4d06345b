"""chat: questions on a terminal, answered token by token by a trial, the shipped one or the bare
base."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lorascope.config import Config
from lorascope.data.conversations import Turn
from lorascope.data.questions import asked_row, remembers
from lorascope.data.rows import PreparedRow
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.stages.generate import Speaker, load_speaker, no_utf8, read_words, visible

CUE = "> "


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], words: Sequence[str]
) -> int:
    """Answer line after line until Ctrl-C, Ctrl-D or the end of what is piped in."""
    speaker = load_speaker(read_words("chat", words), layout)
    keeps = remembers(speaker.named.config.data, speaker.template)
    whole = "former turns are read too" if keeps else "each question is read by itself"
    print(f"{speaker.named.name}; {whole}. Ctrl-D ends it.", file=sys.stderr, flush=True)
    spoken: list[Turn] = []
    try:
        with speaker.adapted() as model:
            for question in _questions():
                try:
                    turns = answered(speaker, model, question, spoken)
                except LorascopeError as error:
                    print(error, file=sys.stderr, flush=True)
                    continue
                spoken = turns if keeps else []
    except KeyboardInterrupt:
        # In the middle of an answer.
        print()
    return 0


def _questions() -> Iterator[str]:
    """Lines that are not blank, until the last one."""
    terminal = sys.stdin.isatty()
    if terminal:
        # Gives `input` a history and keys to edit a line with.
        with suppress(ImportError):
            import readline  # noqa: F401
    while True:
        try:
            line = input(CUE if terminal else "")
        except (EOFError, KeyboardInterrupt):
            if terminal:
                print()
            return
        except UnicodeDecodeError as error:
            raise no_utf8(error) from error
        if line.strip():
            yield line


def answered(speaker: Speaker, model: Any, question: str, spoken: Sequence[Turn]) -> list[Turn]:
    """Write the answer as it comes; all that was said then. Where former turns leave too little of
    the model's context for an answer, the oldest are left out."""
    from lorascope.scoring.evaluation import LoadedBase

    def asked(kept: Sequence[Turn]) -> PreparedRow:
        return asked_row(question, speaker.named.config.data, speaker.template, kept)

    kept = list(spoken)
    while kept and not speaker.has_room(asked(kept)):
        kept = kept[2:]
    if len(kept) < len(spoken):
        print("(the first turns no longer fit the context)", file=sys.stderr, flush=True)
    written = speaker.write(model, asked(kept), _streamer(LoadedBase.tokenizer))
    speaker.tell_if_cut(written)
    # A template writes no empty reply.
    said = [Turn("user", question), Turn("assistant", written.text)] if written.text else []
    return [*kept, *said]


def _streamer(tokenizer: Any) -> Any:
    """It prints words as soon as no further token can change them."""
    from transformers import TextStreamer

    class Printed(TextStreamer):  # type: ignore[misc]
        begun = False

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            shown = visible(text) if self.begun else visible(text).lstrip()
            self.begun = self.begun or bool(shown)
            print(shown, end="\n" if stream_end else "", flush=True)

    return Printed(tokenizer, skip_prompt=True, skip_special_tokens=True)
