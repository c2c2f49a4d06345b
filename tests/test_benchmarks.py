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
from benchmarks.break_even import break_even_tokens, told
from benchmarks.evaluation_rows import largest_gap, read_bare_scores
from benchmarks.measure import (
    BenchmarkError,
    Command,
    Ratios,
    always,
    environment_of,
    in_turns,
    ratios,
    run,
    seconds_side_by_side,
)
from benchmarks.packed_step_times import EQUAL, MIXED, Times, _axes
from benchmarks.peak_watch import PeakWatch
from benchmarks.process_watch import ProcessWatch, Sample, scheduling
from benchmarks.run_parts import Parts, longest_pack
from benchmarks.step_workers import (
    BARE_STEP_WORKER,
    BareTrial,
    Pack,
    bare_step_worker,
    step_workers,
    steps_alone,
    steps_side_by_side,
)
from benchmarks.table import (
    AT_LEAST,
    AT_MOST,
    FAILED,
    MISSED,
    NO_GOAL,
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
    MODE,
    RANKS,
    Size,
    Workload,
    environment,
    told_lives,
)
from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.execution import sweep as sweeps
from lorascope.files.layout import Layout
from lorascope.scoring.items import read_items
from lorascope.stages import evaluate

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


def test_the_reason_is_told_only_where_the_goal_is_missed() -> None:
    row = replace(ROW, reason="arithmetic bounds a step")
    assert "arithmetic bounds" in as_markdown([measured(row, Ratios((4.9,)))])
    assert "arithmetic bounds" not in as_markdown([measured(row, Ratios((5.0,)))])
    assert "arithmetic bounds" not in as_markdown([replace(row, failure="exit code 1")])


def test_a_row_without_a_goal_is_neither_reached_nor_missed() -> None:
    row = measured(replace(ROW, goal=None, reason="none"), Ratios((2.0,)))
    assert row.verdict == NO_GOAL
    page = as_markdown([row])
    assert "| bare / ours |  | 2.00 x | 2.00 to 2.00 | 1 | no goal |" in page
    assert "reached 0, missed 0, failed 0" in page
    assert read_csv(as_csv([row])) == [row]
    assert replace(row, value=None).verdict == FAILED


@pytest.mark.parametrize(
    ("points", "tokens", "words"),
    [
        # Linear in log(tokens): halfway between 64 and 256 lies their geometric mean.
        ([(64, 2.05), (256, 0.05)], 128.0, "up to about 128 tokens"),
        ([(32, 5.0), (64, 1.05), (256, 1.5)], 64.0, "up to about 64 tokens"),
        ([(32, 5.0), (1024, 1.1)], 1024.0, "at every size measured (32 to 1024 tokens)"),
        ([(32, 1.0), (256, 2.0)], 0.0, "at no size measured"),
    ],
)
def test_packing_pays_up_to_the_size_where_its_ratio_falls_below_what_pays(
    points: list[tuple[int, float]], tokens: float, words: str
) -> None:
    assert break_even_tokens(points) == pytest.approx(tokens)
    assert words in told(break_even_tokens(points), points)


def test_packs_side_by_side_are_compared_with_half_of_one_after_the_other() -> None:
    times = Times(alone=[8.0], packed=[4.0], lanes=[2.5], bare=[])
    assert times.gain.middle == 2.0
    assert times.gain_in_lanes.middle == 8.0 / 2 / 2.5


def test_a_pack_s_overrides_name_each_of_its_trials_once() -> None:
    assert _axes(EQUAL) == ["lora.rank=16", "seed=0,1,2,3,4,5,6,7"]
    assert _axes(MIXED) == ["lora.rank=1,2,4,8,16,32,64,128", "seed=0"]


def test_a_scheduler_s_cost_is_empty_lanes_and_its_own_cpu_while_packs_run() -> None:
    """Two lanes, 100 to 110 s. One has packs 1 and 3 with a second between, the other pack 2, which
    ends two seconds early. 4 s of CPU before the first pack, 0.5 while packs run, 1 afterwards."""
    running = {100: {1, 2}, 104: {1, 2}, 105: {2, 3}, 108: {2, 3}, 110: {3}}
    samples = [Sample(99.0, frozenset(), 4.0), Sample(99.5, frozenset({9}), 4.0)]
    samples += [Sample(t, frozenset(packs), 4.0 + (t - 100) / 20) for t, packs in running.items()]
    samples.append(Sample(111.0, frozenset(), 5.5))
    seen = scheduling(samples, started=90.0)
    assert (seen.window_seconds, seen.before_seconds, seen.pack_seconds) == (10.0, 10.0, 17.0)
    assert seen.parent_cpu_seconds == pytest.approx(0.5)
    assert seen.whole_cpu_seconds == 5.5
    assert (seen.empty_seconds(2), seen.tail_seconds(2)) == (3.0, 2.0)
    # 3 empty lane seconds and 0.5 s of CPU, of 2 x 10.
    assert seen.overhead_percent(2) == pytest.approx(17.5)


def test_a_sweep_without_packs_has_no_scheduling_to_tell() -> None:
    with pytest.raises(BenchmarkError, match="no pack was seen"):
        scheduling([Sample(1.0, frozenset(), 0.1)], started=0.0)


FORKING = """
import multiprocessing, time
if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    for _ in range(2):
        child = context.Process(target=time.sleep, args=(1.0,))
        child.start()
        child.join()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_packs_are_seen_from_outside(tmp_path: Path) -> None:
    (tmp_path / "forking.py").write_text(FORKING)
    watch = ProcessWatch()
    run(Command((sys.executable, "forking.py"), tmp_path), watch.start)
    seen = watch.result()
    assert len(seen.left_at_end) == 2
    assert 1.5 <= seen.pack_seconds <= seen.window_seconds + 0.1
    assert seen.parent_cpu_seconds <= seen.whole_cpu_seconds < 5


def test_the_peak_is_that_of_the_largest_process_of_a_command(tmp_path: Path) -> None:
    held = "import time; b = bytearray({} * 10**6); time.sleep(0.3)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{held.format(150)}'])"
    peaks = []
    for program in (held.format(90), child):
        watch = PeakWatch()
        run(Command((sys.executable, "-c", program), tmp_path), watch.start)
        peaks.append(watch.peak_bytes())
    assert 90e6 < peaks[0] < 150e6 < peaks[1] < 240e6


def test_the_longest_pack_s_parts_are_told() -> None:
    short = {"load_seconds": 1.0, "train_seconds": 5.0, "evaluate_seconds": 9.0}
    long = {"load_seconds": 2.0, "train_seconds": 6.0, "evaluate_seconds": 0.5}
    assert longest_pack([short, long, long]) == Parts(load=2.0, steps=6.0, validation=1.0)


def test_bare_scripts_get_no_setting_of_lorascope_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    monkeypatch.setenv("KEPT", "yes")
    command = Command(("true",), Path(), environment(1))
    assert "TORCHDYNAMO_DISABLE" not in environment_of(command)
    assert environment_of(command)["KEPT"] == "yes"


def test_a_former_table_of_other_columns_is_not_kept(tmp_path: Path) -> None:
    old = measured(replace(ROW, name="added rank", git_commit="abc"), Ratios((1.0,)))
    new = [replace(ROW, git_commit="abc")]
    write_tables(tmp_path, [old])
    assert kept_rows(tmp_path, new) == [old]
    (tmp_path / "benchmark.csv").write_text("name,value\nadded rank,1.0\n")
    assert kept_rows(tmp_path, new) == []


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


def test_a_partial_run_keeps_rows_of_the_same_machine_only(tmp_path: Path) -> None:
    made = {"git_commit": "abc", "processor": "some cpu", "versions": "torch 2"}
    old = [
        replace(measured(replace(ROW, name=name), Ratios((1.0,))), **made)  # type: ignore[arg-type]
        for name in ("sweep: one after the other", "sweep: two side by side", "added rank")
    ]
    write_tables(tmp_path, old)
    new = [replace(old[0], value=7.0)]
    assert [row.name for row in kept_rows(tmp_path, new)] == ["added rank"]
    for other in ({"processor": "another"}, {"versions": "torch 3"}):
        assert kept_rows(tmp_path, [replace(new[0], **other)]) == []  # type: ignore[arg-type]
    later = [replace(new[0], git_commit="def")]
    both = [*later, *kept_rows(tmp_path, later)]
    page = as_markdown(both)
    assert "- sweep: commit def; some cpu; torch 2." in page
    assert "- added rank: commit abc; some cpu; torch 2." in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.csv", "benchmark.md"]


def test_rows_stand_in_the_table_s_order_whichever_run_they_are_of() -> None:
    rows = [replace(ROW, name=display_name(name)) for name in reversed(MODULE_OF)]
    assert [row.name for row in in_table_order(rows)] == [display_name(name) for name in MODULE_OF]


def test_scores_of_other_items_are_not_compared() -> None:
    assert largest_gap({"a": -1.0, "b": -2.0}, {"a": -1.5, "b": -2.0}) == 0.5
    with pytest.raises(BenchmarkError, match="1 of them by both"):
        largest_gap({"a": -1.0, "b": -2.0}, {"a": -1.0, "c": -2.0})


def test_the_workload_s_rows_have_the_length_that_the_page_states() -> None:
    from lorascope.bases.tiny.pretraining import build_tiny_tokenizer

    tokenizer = build_tiny_tokenizer()
    texts = [f"{row['prompt']} {row['completion']}" for row in told_lives()]
    encoded = tokenizer(texts)["input_ids"]
    # The end of text is one more.
    assert 31 <= sum(len(ids) + 1 for ids in encoded) / len(encoded) <= 33
    assert tokenizer.unk_token_id not in {token for ids in encoded for token in ids}
    assert (RANKS[0], RANKS[-1], len(RANKS)) == (1, 128, 8)


@pytest.mark.parametrize("script", [BARE_SCRIPT, BARE_STEP_WORKER, BARE_LM_EVAL])
def test_the_baselines_know_nothing_of_lorascope(script: Path) -> None:
    assert "import lorascope" not in script.read_text()
    assert "from lorascope" not in script.read_text()


@pytest.mark.slow
def test_step_workers_time_packs_and_tell_what_failed(project: Layout) -> None:
    shared = ("model=small", "quant=nf4", "train=few", "lora.rank=2")
    there = (*shared, "data=toy")
    packs = [Pack(project.root, (*there, f"seed={seeds}"), 2) for seeds in ("0,1", "2,3")]
    with step_workers((1, 1)) as workers:
        assert 0 < steps_alone(workers[0], packs) < 60
        assert 0 < steps_side_by_side(workers, packs) < 60
        with pytest.raises(BenchmarkError, match=r"(?s)a training failed: .*no-such-data"):
            steps_alone(workers[0], [Pack(project.root, (*shared, "data=no-such-data"), 2)])


@pytest.mark.slow
def test_bare_steps_are_timed_one_adapter_after_the_other(project: Layout, tmp_path: Path) -> None:
    words = (
        "--base", str(project.quantized("small", "nf4")), "--rank", "2", "--output", str(tmp_path),
        "--data", str(project.data("small", "toy") / "train.jsonl"), "--steps", "9999",
    )  # fmt: skip
    with bare_step_worker(1) as worker:
        assert 0 < steps_alone(worker, [BareTrial(words, 2), BareTrial(words, 2)]) < 60
        with pytest.raises(BenchmarkError, match=r"(?s)failed: .*FileNotFoundError"):
            steps_alone(worker, [BareTrial((*words, "--data", "no-such-data"), 2)])


@pytest.mark.slow
def test_the_bare_script_trains_the_same_adapter(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    """In the benchmark's mode: same data order, seeds, types and steps. Packs add up in another
    order than PEFT, and where a gradient is next to nothing AdamW makes whole steps of that
    rounding: 1e-5 of the weights' norm leaves room for it, not for another batch."""
    settings = (f"quant={MODE}", "lora.rank=4", "lora.alpha=8", "train.steps=20")
    ours, other = (trained(project, compose(*settings, f"seed={seed}")) for seed in (5, 6))
    words = (
        sys.executable, str(BARE_SCRIPT), "--base", str(project.quantized("small", MODE)),
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
    record = sweeps.run(config, project)
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
def test_bare_lm_eval_gives_the_same_scores(
    project: Layout, compose: Callable[..., Config], tmp_path: Path
) -> None:
    mode = "nf4"
    config = compose(f"quant={mode}", "seed=7", "train.steps=20")
    trial = sweeps.run(config, project).trial
    evaluate.command([config], project)
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
