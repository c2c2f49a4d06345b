"""`generate` and `chat`: what a trial writes on a terminal is what it is kept to say."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import pytest

from lorascope.cli import run_named
from lorascope.config import TemplateKind
from lorascope.data.conversations import Turn
from lorascope.data.questions import asked_row
from lorascope.data.rows import PreparedRow, Segment
from lorascope.data.templates import make_template
from lorascope.errors import ConfigError
from lorascope.files.layout import EXAMPLES_FILE, Layout
from lorascope.scoring.evaluation import LoadedBase
from lorascope.scoring.generation import Written
from lorascope.scoring.kept_examples import chosen_rows
from lorascope.scoring.lm_eval_model import encode
from lorascope.stages import evaluate
from lorascope.stages.chat import answered
from lorascope.stages.generate import load_speaker, read_words, visible
from tests.conftest import TEST_DEVICE, TRIAL, compose_one

ON = [f"runtime.device={TEST_DEVICE}"] if TEST_DEVICE else []


def test_the_shipped_trial_and_the_bare_base_say_what_was_kept(
    study: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose_one(study, *TRIAL, "evaluate.examples=2", "evaluate.example_tokens=5")
    evaluate.command([config], study)
    kept = {
        folder.name.partition("-")[0]: [json.loads(line) for line in text.splitlines()]
        for folder in study.examples("nf4").iterdir()
        if (text := (folder / EXAMPLES_FILE).read_text())
    }
    assert kept["base"] != kept["nf4"]
    for words, told in (((), kept["nf4"]), (("trial=base", "quant=nf4"), kept["base"])):
        capsys.readouterr()
        prompt = f"prompt={told[0]['prompt']}"
        assert run_named("generate", [], study, {}, [*words, prompt, "tokens=5", *ON]) == 0
        assert capsys.readouterr().out == f"{told[0]['text']}\n"
    # Line by line, as from a pipe: two questions, each read by itself.
    asked = "".join(f"{one['prompt']}\n" for one in kept["nf4"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(asked))
    assert run_named("chat", [], study, {}, ["trial=nf4-r0004", "tokens=5", *ON]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [one["text"] for one in kept["nf4"]]
    assert "each question is read by itself" in said.err


def test_a_pipe_is_read_as_a_prompt_is_typed(
    study: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["trial=base", "quant=nf4", "tokens=3", *ON]
    prompt = "thing 5 has the color"
    capsys.readouterr()
    assert run_named("generate", [], study, {}, [*words, f"prompt={prompt}"]) == 0
    typed = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", piped(f"{prompt}\n".encode()))
    assert run_named("generate", [], study, {}, words) == 0
    assert capsys.readouterr().out == typed
    for command in ("generate", "chat"):
        monkeypatch.setattr(sys, "stdin", piped("café\n".encode("latin-1")))
        with pytest.raises(ConfigError, match=r"no UTF-8.*iconv"):
            run_named(command, [], study, {}, words)


def test_an_answer_that_is_cut_says_what_cut_it(
    study: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trial=base", "quant=nf4", *ON]
    asked = load_speaker(read_words("generate", [*words, "tokens=9"]), study)
    assert asked.context_tokens == 64
    told = {}
    for tokens, ended, cut in ((4, True, ""), (9, False, "tokens=18"), (4, False, "context of 64")):
        asked.tell_if_cut(Written("", tokens, ended))
        told[cut] = capsys.readouterr().err
        assert cut in told[cut]
        assert (told[cut] == "") is ended
    # The bare base knows no end: it goes on to the limit.
    capsys.readouterr()
    assert run_named("generate", [], study, {}, [*words, "prompt=thing 5 has", "tokens=2"]) == 0
    assert "cut after 2 tokens: tokens=2 is the most" in capsys.readouterr().err


def test_old_turns_go_before_an_answer_has_a_few_tokens_left(
    study: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    words = read_words("chat", ["trial=base", "quant=nf4", "tokens=30", *ON])
    plain = load_speaker(words, study)
    template = make_template(TemplateKind.llama2, None, LoadedBase.tokenizer)
    speaker, old = (
        replace(plain, template=template),
        [Turn("user", "thing"), Turn("assistant", "red")],
    )
    question, lengths = "thing 5 has the color", []
    for turns in range(8):
        row = asked_row(question, speaker.named.config.data, template, old * turns)
        (ids,) = encode(LoadedBase.tokenizer, [row.prompt])
        lengths.append(len(ids))
        # A quarter of 64 tokens is fewer than the 30 that are asked for.
        assert speaker.has_room(row) is (64 - len(ids) >= 16)
    fitting = max(turns for turns, length in enumerate(lengths) if 64 - length >= 16)
    assert 0 < fitting < 7
    assert 64 - lengths[fitting + 1] > 0
    capsys.readouterr()
    with speaker.adapted() as model:
        kept = answered(speaker, model, question, old * (fitting + 1))
    assert len(kept) in (2 * fitting, 2 * fitting + 2)
    assert "the first turns no longer fit" in capsys.readouterr().err


def piped(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")


def test_what_several_rows_ask_is_shown_once_and_a_start_token_asks_nothing() -> None:
    def row(item: str, prompt: str) -> PreparedRow:
        return PreparedRow(item, [Segment("x", True)], prompt, "x")

    rows = [row("c", "<s>A?"), row("a", "<s>"), row("b", "<s>A?"), row("d", "<s>B?")]
    assert [own.item for own in chosen_rows(rows, 3, ["<s>"])] == ["b", "d"]


def test_a_setting_that_cannot_be_used_is_refused_by_name(study: Layout) -> None:
    for word, key in (
        ("tokens=0", "tokens"),
        ("temperature=-1", "temperature"),
        ("hello", "hello"),
    ):
        with pytest.raises(ConfigError, match=key):
            run_named("generate", [], study, {}, ["trial=nf4-r0004", "prompt=a", word])


def test_a_model_cannot_write_to_the_terminal_itself() -> None:
    assert visible("a\x1b[2Jb\n\tü\x07\x9b") == "a\ufffd[2Jb\n\tü\ufffd\ufffd"
