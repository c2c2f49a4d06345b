"""`lorascope init` and `look`: from a model's folder and a file of rows to a study that `check` and
`plan` accept, in a folder that is no clone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from lorascope.config import DataConfig, Format, Scoring
from lorascope.data.files import RawRow
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.starting.detected import detect
from lorascope.starting.first_study import sensible_ranks
from lorascope.starting.shown_row import BETWEEN_MARKS, TrainedSpans, marked, trained_spans
from tests.command_line import lorascope
from tests.conftest import save_small_model, toy_rows

Started = tuple[Layout, subprocess.CompletedProcess[str], Path]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and rows, as somebody has them elsewhere; two rows are of no use."""
    folder = tmp_path_factory.mktemp("elsewhere")
    save_small_model(folder / "a model")
    rows = [*toy_rows(), {"prompt": "thing 3 has", "completion": " "}, {"prompt": "thing 4"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "colors.jsonl").write_text(lines)
    (folder / "odd.csv").write_text("query;response\na;b\n")
    (folder / "other.csv").write_text("query,response\na,b\n")
    return folder


@pytest.fixture(scope="module")
def started(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Started:
    layout = Layout(tmp_path_factory.mktemp("study"))
    asked = [f"model={sources / 'a model'}", f"data={sources / 'colors.jsonl'}"]
    return layout, lorascope(layout, "init", *asked), sources


def test_a_study_of_own_rows_is_accepted_and_planned(started: Started) -> None:
    layout, made, sources = started
    assert made.returncode == 0, made.stderr
    assert "next: `lorascope look --rows 3`" in made.stderr.splitlines()[-1]
    assert {path.parent.name for path in layout.conf.rglob("*.yaml")} == {"model", "data"}
    data = yaml.safe_load((layout.conf / "data/colors.yaml").read_text())
    assert (data["format"], data["scoring"]) == ("prompt_completion", "answer")
    # Six tokens and the end of the text.
    assert data["max_tokens"] == 32
    assert (layout.root / "data/raw/colors.jsonl").samefile(sources / "colors.jsonl")
    listed = lorascope(layout, "inventory")
    assert (listed.returncode, listed.stderr) == (0, "")
    checked = lorascope(layout, "check")
    assert checked.stdout.startswith("valid: trials 8, modes 4"), checked.stderr
    planned = lorascope(layout, "plan", "quant=fp16", "runtime.device=cpu")
    assert planned.returncode == 0, planned.stderr


def test_look_shows_what_is_trained_and_what_is_dropped(started: Started) -> None:
    layout, *_ = started
    shown = lorascope(layout, "look", "--rows", "2")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("⟦") == 3
    assert "⟧" in shown.stdout.split("--- 1")[1]
    assert "completion is empty: data/raw/colors.jsonl, line 97" in shown.stdout
    assert not layout.data("a_model", "colors").exists()


def test_a_dvc_yaml_of_another_release_is_told_and_written_anew(started: Started) -> None:
    wiring = started[0].root / "dvc.yaml"
    before = wiring.read_text()
    wiring.write_text(before + "# older\n")
    assert "`lorascope inventory dvc.yaml`" in lorascope(started[0], "inventory").stderr
    assert not lorascope(started[0], "inventory", "dvc.yaml").stderr
    assert wiring.read_text() == before


def test_answers_without_room_are_compared_by_loss(sources: Path, tmp_path: Path) -> None:
    """Twenty tokens are more than conf/evaluate/default generates, and the context holds no more
    than 64, where conf/evaluate/solutions asks for 200."""
    rows = [{**row, "completion": "red " * 20, "answer": "red"} for row in toy_rows()]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [f"model={sources / 'a model'}", "data=long.jsonl", "--no-scm"]
    made = lorascope(Layout(tmp_path), "init", *asked)
    assert made.returncode == 0, made.stderr
    assert "scoring loss: replies are too long" in made.stdout
    data = yaml.safe_load((tmp_path / "conf/data/long.yaml").read_text())
    assert (data["scoring"], data["train"]) == ("loss", "long.jsonl")


def test_nothing_is_overwritten_in_silence(started: Started) -> None:
    layout, _, sources = started
    before = layout.params.read_text()
    layout.params.write_text(before + "# mine\n")
    asked = [f"model={sources / 'a model'}", f"data={sources / 'colors.jsonl'}"]
    again = lorascope(layout, "init", *asked)
    assert again.returncode == 2
    assert "params.yaml: there already" in again.stderr
    assert layout.params.read_text().endswith("# mine\n")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["data=missing.jsonl"], "no such file"),
        (["data=odd.csv"], "separated by commas"),
        (["data=other.csv"], "Rename query to prompt and response to completion"),
        (["data=colors.jsonl", "model=nowhere"], "no such folder"),
        (["data=colors.jsonl", "model=."], "lacks config.json"),
        (["data=colours.jsonl"], "colors.jsonl? A dataset on the hub is owner/name."),
        (["data=colors.jsonl", "lora.rank=8"], "Ranks, modes and training stand in params.yaml"),
        (["data=colors.jsonl", "data.formt=text"], "formt"),
        (["colors.jsonl"], "it takes model=, data="),
        (["../mine", "owner/rows"], "data=owner/rows`"),
        (["--model", "../mine"], "words without dashes: model=../mine."),
        (["model=x"], "nothing is named"),
    ],
)
def test_wrong_words_name_the_remedy(
    sources: Path, tmp_path: Path, asked: list[str], told: str
) -> None:
    ours = [word.replace("data=", f"data={sources}/") for word in asked]
    if not any(word.startswith("model=") for word in asked):
        ours.append(f"model={sources / 'a model'}")
    answer = lorascope(Layout(tmp_path), "init", *ours)
    assert answer.returncode == 2
    assert told in answer.stderr
    assert not list(tmp_path.iterdir())


CASES: dict[Format, dict[str, object]] = {
    Format.pairs: {"prompt": "a", "chosen": "b", "rejected": "c"},
    Format.chat_pairs: {"prompt": "a", **{
        name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}},
    Format.alpaca_pairs: {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"},
    Format.alpaca: {"instruction": "a", "input": "", "output": "b"},
    Format.chat: {"messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    Format.turns: {"text": "### Human: a ### Assistant: b"},
    Format.rendered: {"text": "[INST] a [/INST] b </s>"},
    Format.source_target: {"text": "name[a] || b"},
    Format.question_answer: {"question": "a", "answer": "b"},
    Format.prompt_completion: {"prompt": "a", "completion": "b"},
    Format.labelled: {"text": "a", "label": 0},
    Format.text: {"text": "a"},
}  # fmt: skip


@pytest.mark.parametrize("form", Format)
def test_each_format_is_found_by_its_own_rows(form: Format) -> None:
    rows = [RawRow(CASES[form], f"row {n}") for n in range(4)]
    if form is Format.labelled:
        rows.append(RawRow({"text": "b", "label": 1}, "row 5"))
    found = detect(rows, DataConfig(name="mine"), is_given=False)
    assert found.config.format is form
    assert found.fitting == len(rows)


def test_scoring_follows_the_rows() -> None:
    def scoring(**row: object) -> Scoring:
        return detect([RawRow(row, "row 1")], DataConfig(name="mine"), False).config.scoring

    long = "one two three four five six"
    assert scoring(prompt="a", completion="b") is Scoring.answer
    assert scoring(prompt="a", completion=long) is Scoring.loss
    assert scoring(prompt="a", completion=long, answer="six") is Scoring.answer
    assert scoring(prompt="a", completion="b", answer="b", choices=["b", "c"]) is Scoring.choices
    assert scoring(question="a", answer=f"{long} #### 6") is Scoring.answer
    with pytest.raises(ConfigError, match="Rename input to prompt and response to completion"):
        scoring(input="a", response="b")
    with pytest.raises(ConfigError, match="Rename user_query to prompt and bot to completion"):
        scoring(user_query="a", bot="b")
    with pytest.raises(ConfigError, match="Rename question to prompt and the column of the reply"):
        scoring(context="a", question="b", spans=["c"])


def test_columns_that_a_format_passes_over_are_named() -> None:
    values: dict[str, object] = {
        "system": "Be brief.", "instruction": "a", "input": "", "output": "b",
        "history": [["c", "d"]], "note": None,
    }  # fmt: skip
    found = detect([RawRow(values, "row 1")], DataConfig(name="mine"), is_given=False)
    assert (found.config.format, found.unread) == (Format.alpaca, ("system", "history"))
    grouped = detect([RawRow(values, "row 1")], DataConfig(name="mine", group="system"), False)
    assert grouped.unread == ("history",)


def test_ranks_fit_the_smallest_matrix() -> None:
    assert sensible_ranks(4096) == (4, 16, 64)
    assert sensible_ranks(64) == (4, 16)
    assert sensible_ranks(4) == (1, 2)


def test_marks_stand_where_labels_do(sources: Path) -> None:
    from lorascope.data.rows import PreparedRow, Segment

    tokenizer = load_tokenizer(sources / "a model")
    segments = [Segment("thing 3 has", False), Segment(" red<eos>", True)]
    row = PreparedRow("x", segments, "thing 3 has", " red<eos>")
    found = trained_spans(row, tokenizer, train_on_prompt=False)
    assert (found.tokens, found.trained_tokens) == (5, 2)
    assert marked(found, BETWEEN_MARKS) == "thing 3 has⟦ red<eos>⟧"
    long = TrainedSpans("a\x1b" + "b" * 1000, 2, 1, [(2, 1002)])
    assert marked(long, BETWEEN_MARKS).startswith("a\\x1b⟦bb")
    assert marked(long, BETWEEN_MARKS).endswith("bb⟧")
    assert "402 characters" in marked(long, BETWEEN_MARKS)
