"""generate: what a trial, the shipped one or the bare base writes to one prompt."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorascope.config import Config
from lorascope.data.questions import asked_row
from lorascope.data.templates import Template, make_template
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.machine.environment import prepare_environment
from lorascope.machine.libraries import import_uncollected
from lorascope.study.named_trial import Named, find_named
from lorascope.study.overrides import known_keys
from lorascope.study.spelling import closest

if TYPE_CHECKING:
    from lorascope.data.rows import PreparedRow
    from lorascope.scoring.generation import Writing, Written

LONGEST_TOKENS = 256
ANSWERS_SHARE = 4
"""One part in so many of the context is kept for an answer where former turns would fill it."""


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], words: Sequence[str]
) -> int:
    """Print what is written to `prompt=...`, or to what standard input holds.

    Raises:
        ConfigError: there is no prompt, or a setting cannot be used.
    """
    asked = read_words("generate", words, ("prompt",))
    prompt = asked.values.get("prompt")
    if prompt is None and not sys.stdin.isatty():
        prompt = _piped()
    if prompt is None:
        raise ConfigError(
            "prompt", "", "nothing is asked", 'Write `lorascope generate prompt="..."`.'
        )
    speaker = load_speaker(asked, layout)
    row = asked_row(prompt, speaker.named.config.data, speaker.template)
    with speaker.adapted() as model:
        written = speaker.write(model, row)
    print(visible(written.text))
    speaker.tell_if_cut(written)
    return 0


def _piped() -> str:
    """What standard input holds, without the line's end that shells write.

    Raises:
        ConfigError: it is no UTF-8.
    """
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise no_utf8(error) from error


def no_utf8(error: UnicodeDecodeError) -> ConfigError:
    """The refusal of bytes that are no text."""
    return ConfigError(
        "prompt", "(standard input)", f"it is no UTF-8 ({error})",
        "Convert it, as with `iconv -f LATIN1 -t UTF-8`.",
    )  # fmt: skip


@dataclass(frozen=True)
class Words:
    """A command line, taken apart."""

    values: Mapping[str, str]
    """Of the command's own keys."""
    overrides: tuple[str, ...]


OWN = ("trial", "temperature", "tokens", "seed")


def read_words(command: str, words: Sequence[str], more: Sequence[str] = ()) -> Words:
    """The command's own `key=value`, among which are `more`, and overrides of the configuration."""
    own, groups = (*OWN, *more), {key.partition(".")[0] for key in known_keys()}
    values: dict[str, str] = {}
    overrides = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or word.startswith("-"):
            raise ConfigError(
                command, word, "it takes key=value", f"Its own keys are {', '.join(own)}."
            )
        if key in own:
            values[key] = value
        elif "." not in key and key not in groups and (near := closest(key, own)):
            raise ConfigError(command, word, "no such key", f"Its own are {', '.join(own)}.{near}")
        else:
            overrides.append(word)
    return Words(values, tuple(overrides))


def _writing(values: Mapping[str, str]) -> Writing:
    from lorascope.scoring.generation import Writing

    return Writing(
        longest_tokens=int(_number(values, "tokens", LONGEST_TOKENS, whole=True, least=1)),
        temperature=_number(values, "temperature", 0.0, whole=False, least=0),
        seed=int(_number(values, "seed", 0, whole=True, least=0)),
    )


def _number(
    values: Mapping[str, str], key: str, default: float, *, whole: bool, least: int
) -> float:
    if key not in values:
        return default
    try:
        number = float(int(values[key]) if whole else float(values[key]))
    except ValueError:
        number = float("nan")
    if not least <= number < 2**32:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(key, values[key], "cannot be used", f"Give {kind} from {least} on.")
    return number


@dataclass(frozen=True)
class Speaker:
    """A loaded base, with what is asked on it."""

    named: Named
    template: Template
    how: Writing
    context_tokens: int

    def adapted(self) -> Any:
        """The model, within which its adapter is on the base."""
        from lorascope.scoring.evaluation import LoadedBase

        return LoadedBase.adapted(self.named.adapter)

    def write(self, model: Any, row: PreparedRow, streamer: Any = None) -> Written:
        """What the model writes to a prepared row's prompt, as scoring=answer reads it."""
        from lorascope.scoring.evaluation import LoadedBase
        from lorascope.scoring.generation import write

        tokenizer, prompt = LoadedBase.tokenizer, self._prompt(row)
        return write(model, tokenizer, prompt, self.how, self.context_tokens, streamer)

    def has_room(self, row: PreparedRow) -> bool:
        """Whether the context has room behind a row's prompt for the longest answer, or at least
        for one of a quarter of it."""
        from lorascope.scoring.evaluation import LoadedBase
        from lorascope.scoring.lm_eval_model import encode

        (ids,) = encode(LoadedBase.tokenizer, [self._prompt(row)])
        wanted = min(self.how.longest_tokens, self.context_tokens // ANSWERS_SHARE)
        return self.context_tokens - len(ids) >= wanted

    def _prompt(self, row: PreparedRow) -> str:
        from lorascope.scoring.evaluation import LoadedBase
        from lorascope.scoring.lm_eval_model import generation_prompts

        (prompt,) = generation_prompts(LoadedBase.tokenizer, [row])
        return prompt

    def tell_if_cut(self, written: Written) -> None:
        """Say on standard error that an answer did not end by itself, and what ended it."""
        if written.ended:
            return
        limit = self.how.longest_tokens
        if written.tokens < limit:
            told = f"the model's context of {self.context_tokens} tokens is full"
        else:
            told = f"tokens={limit} is the most that was asked for; tokens={2 * limit} allows more"
        print(f"(cut after {written.tokens} tokens: {told})", file=sys.stderr, flush=True)


def load_speaker(asked: Words, layout: Layout) -> Speaker:
    """Load the stored base of what is asked. All that can be refused without it is refused first.

    Raises:
        ConfigError: as `find_named`, or a number cannot be used.
        ModelError: the model writes no text.
    """
    named = find_named(asked.values.get("trial"), asked.overrides, layout)
    prepare_environment(named.config.runtime)
    import_uncollected("lorascope.scoring.evaluation")
    from lorascope.scoring.evaluation import LoadedBase
    from lorascope.scoring.generation import require_writer
    from lorascope.study.intact import read_base

    how, data = _writing(asked.values), named.config.data
    LoadedBase.load(named.config, layout)
    require_writer(LoadedBase.model, named.name)
    if named.data_changed:
        print(
            f"{named.name}: its data were prepared anew since it was trained; the prompt is "
            "written as they are now",
            file=sys.stderr,
        )
    template = make_template(data.template, data.system, LoadedBase.tokenizer, data.date)
    return Speaker(named, template, how, read_base(named.config, layout).context_tokens)


def visible(text: str) -> str:
    """Text without control characters, with which a model could write to the terminal itself."""
    return "".join(c if c in "\n\t" or c.isprintable() or ord(c) > 0x9F else "\ufffd" for c in text)
