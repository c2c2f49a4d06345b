"""`generate` and `chat`: what a trial writes on a terminal is what it is kept to say."""

from __future__ import annotations

import io
import json
import sys

import pytest

from lorascope.cli import run_named
from lorascope.errors import ConfigError
from lorascope.files.layout import EXAMPLES_FILE, Layout
from lorascope.stages import evaluate
from lorascope.stages.generate import visible
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
