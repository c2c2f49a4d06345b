"""The benchmark: its arithmetic and tables, and that the bare scripts do what lorascope does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.__main__ import MODULE_OF, display_name, in_table_order, measure
from benchmarks.evaluation_rows import largest_gap, read_bare_scores
from benchmarks.measure import (
    BenchmarkError,
    Command,
    Ratios,
    always,
    in_turns,
    ratios,
    run,
    seconds_side_by_side,
)
from benchmarks.table import (
    AT_LEAST,
    AT_MOST,
    FAILED,
    MISSED,
    REACHED,
    Row,
    as_csv,
    as_markdown,
    kept_rows,
    measured,
    read_csv,
    write_tables,
)
from benchmarks.workload import (
    BARE_LM_EVAL,
    BARE_SCRIPT,
    RANKS,
    Size,
    Workload,
    environment,
    told_lives,
)
from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.item_results import read_items
from lorascope.layout import Layout
from lorascope.stages import evaluate, train_lora

ROW = Row("sweep: one after the other", "bare / ours", AT_LEAST, 5.0, "x")


def test_a_ratio_is_taken_round_by_round_and_its_median_told() -> None:
    values = ratios([10.0, 30.0, 8.0], [2.0, 5.0, 4.0])
    assert values.values == (5.0, 6.0, 2.0)
    assert (values.middle, values.lowest, values.highest) == (5.0, 2.0, 6.0)


@pytest.mark.parametrize(("numerators", "denominators"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_pair_are_refused(
    numerators: list[float], denominators: list[float]
) -> None:
    with pytest.raises(BenchmarkError, match="cannot be paired"):
        ratios(numerators, denominators)


def test_sides_run_in_turns() -> None:
    order: list[str] = []

    def side(name: str) -> Callable[[int], float]:
        def timed(index: int) -> float:
            order.append(f"{name}{index}")
            return float(len(order))

        return timed

    assert in_turns([side("a"), side("b")], 2) == [[1.0, 3.0], [2.0, 4.0]]
    assert order == ["a0", "b0", "a1", "b1"]


def test_two_processes_at_a_time_take_half_as_long(tmp_path: Path) -> None:
    sleeps = [Command(("sleep", "0.5"), tmp_path)] * 4
    assert 1.0 <= seconds_side_by_side(sleeps, processes=2) < 1.8
    assert always(sleeps[0])(0) >= 0.5


def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    broken = Command(("sh", "-c", "echo no such thing >&2; exit 3"), tmp_path)
    with pytest.raises(BenchmarkError, match=r"exit code 3 instead of 0.*no such thing"):
        run(broken)
    assert "no such thing" in run(replace(broken, exit_code=3))


@pytest.mark.parametrize(
    ("bound", "value", "verdict"),
    [
        (AT_LEAST, 5.0, REACHED), (AT_LEAST, 4.99, MISSED),
        (AT_MOST, 5.0, REACHED), (AT_MOST, 5.01, MISSED),
    ],
)  # fmt: skip
def test_a_goal_is_reached_by_the_median(bound: str, value: float, verdict: str) -> None:
    row = measured(replace(ROW, bound=bound), Ratios((0.1, value, 90.0)))
    assert (row.verdict, row.value, row.lowest, row.highest) == (verdict, value, 0.1, 90.0)
    assert row.runs == 3


def test_what_was_not_measured_failed_and_is_not_dropped() -> None:
    assert ROW.verdict == FAILED
    broken = replace(measured(ROW, Ratios((9.0,))), failure="exit code 1")
    assert broken.verdict == FAILED
    page = as_markdown([broken, measured(ROW, Ratios((2.0,)))])
    assert "| **failed** |" in page
    assert "| **missed** |" in page
    assert "Failed: exit code 1" in page
    assert "reached 0, missed 1, failed 1" in page


def test_a_row_that_raises_is_a_row_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODULE_OF, "sweep", "no_such_module")
    workload = Workload(tmp_path, Size(), threads=1, bare_threads=1)
    (row,) = measure("sweep", workload)
    assert row.verdict == FAILED
    assert "no_such_module" in row.failure


def test_the_csv_reads_back_as_it_was() -> None:
    full = replace(
        measured(ROW, Ratios((1.25, 3.5))), workload='a "quoted", text', note="two\nlines",
        git_commit="abc", processor="some cpu", versions="torch 2",
    )  # fmt: skip
    failed = replace(ROW, failure="exit code 1")
    assert read_csv(as_csv([full, failed])) == [full, failed]
    assert as_csv([full]).splitlines()[0].endswith(",verdict")


def test_a_partial_run_keeps_rows_of_the_same_commit_and_machine_only(tmp_path: Path) -> None:
    made = {"git_commit": "abc", "processor": "some cpu", "versions": "torch 2"}
    old = [
        replace(measured(replace(ROW, name=name), Ratios((1.0,))), **made)  # type: ignore[arg-type]
        for name in ("sweep: one after the other", "sweep: two side by side", "added rank")
    ]
    write_tables(tmp_path, old)
    new = [replace(old[0], value=7.0)]
    assert [row.name for row in kept_rows(tmp_path, new, clean=True)] == ["added rank"]
    assert kept_rows(tmp_path, new, clean=False) == []
    for other in ({"git_commit": "def"}, {"processor": "another"}, {"versions": "torch 3"}):
        assert kept_rows(tmp_path, [replace(new[0], **other)], clean=True) == []  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.csv", "benchmark.md"]


def test_rows_stand_in_the_table_s_order_whichever_run_they_are_of() -> None:
    rows = [replace(ROW, name=display_name(name)) for name in reversed(MODULE_OF)]
    assert [row.name for row in in_table_order(rows)] == [display_name(name) for name in MODULE_OF]


def test_scores_of_other_items_are_not_compared() -> None:
    assert largest_gap({"a": -1.0, "b": -2.0}, {"a": -1.5, "b": -2.0}) == 0.5
    with pytest.raises(BenchmarkError, match="1 of them by both"):
        largest_gap({"a": -1.0, "b": -2.0}, {"a": -1.0, "c": -2.0})


def test_the_workload_s_rows_have_the_length_that_the_page_states() -> None:
    from lorascope.pretraining import build_tiny_tokenizer

    tokenizer = build_tiny_tokenizer()
    texts = [f"{row['prompt']} {row['completion']}" for row in told_lives()]
    encoded = tokenizer(texts)["input_ids"]
    # The end of text is one more.
    assert 31 <= sum(len(ids) + 1 for ids in encoded) / len(encoded) <= 33
    assert tokenizer.unk_token_id not in {token for ids in encoded for token in ids}
    assert (RANKS[0], RANKS[-1], len(RANKS)) == (1, 128, 8)


@pytest.mark.parametrize("script", [BARE_SCRIPT, BARE_LM_EVAL])
def test_the_baselines_know_nothing_of_lorascope(script: Path) -> None:
    assert "import lorascope" not in script.read_text()
    assert "from lorascope" not in script.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fp16", "nf4"])
def test_the_bare_script_trains_the_same_adapter(
    project: Layout, compose: Callable[..., Config], tmp_path: Path, mode: str
) -> None:
    """Same data order, seeds, types and steps. Packs add up in another order than PEFT, and where a
    gradient is next to nothing AdamW makes whole steps of that rounding: 1e-5 of the weights' norm
    leaves room for it, not for another batch."""
    settings = (f"quant={mode}", "lora.rank=4", "lora.alpha=8", "train.steps=20")
    ours, other = (trained(project, compose(*settings, f"seed={seed}")) for seed in (5, 6))
    words = (
        sys.executable, str(BARE_SCRIPT), "--base", str(project.quantized("small", mode)),
        "--data", str(project.data("small", "toy") / "train.jsonl"), "--rank", "4",
        "--alpha", "8", "--steps", "20", "--batch-size", "8", "--learning-rate", "1e-2",
        "--seed", "5", "--threads", str(torch_threads()), "--output", str(tmp_path),
    )  # fmt: skip
    run(Command(words, project.root, environment(torch_threads())))
    bare = load_file(tmp_path / "adapter_model.safetensors")
    assert ours.keys() == bare.keys()
    assert relative_difference(ours, bare) <= 1e-5
    assert relative_difference(other, bare) > 0.1


def trained(project: Layout, config: Config) -> dict[str, Tensor]:
    """The adapter that lorascope makes of `config`."""
    record = train_lora.run(config, project)
    folder = project.trials(config.quant.name) / record.trial
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def relative_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Norm of the difference of all weights, as a share of their norm."""
    squares = [
        (float((value - theirs[name]).double().pow(2).sum()), float(value.double().pow(2).sum()))
        for name, value in ours.items()
    ]
    difference, whole = (sum(parts) ** 0.5 for parts in zip(*squares, strict=True))
    return float(difference / whole)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fp16", "nf4"])
def test_bare_lm_eval_gives_the_same_scores(
    project: Layout, compose: Callable[..., Config], tmp_path: Path, mode: str
) -> None:
    config = compose(f"quant={mode}", "seed=7", "train.steps=20")
    trial = train_lora.run(config, project).trial
    evaluate.run(config, project)
    rows = project.data("small", "toy") / "test.jsonl"
    words = (
        sys.executable, str(BARE_LM_EVAL), "--base", str(project.quantized("small", mode)),
        "--adapter", str(project.trials(mode) / trial / "adapter"), "--data", str(rows),
        "--batch-size", str(config.evaluate.batch_size), "--output", str(tmp_path / "scores.jsonl"),
    )  # fmt: skip
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    run(Command(words, project.root, environment(torch_threads()) | cache))
    items = read_items(project.evaluations(mode) / trial / "test.jsonl")
    ours = {item.item: -item.loss_nats for item in items}
    assert len(ours) == len(read_rows(rows))
    assert largest_gap(read_bare_scores(tmp_path / "scores.jsonl"), ours) <= 1e-4


def torch_threads() -> int:
    """As many as this process trains with: another number may round otherwise."""
    import torch

    return int(torch.get_num_threads())
