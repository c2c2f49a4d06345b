"""The GPU check, whole, on a CPU with tiny shapes: what it tells is held against what is known."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.utils import canonicalize_name

from benchmarks.gpu_check import steps as steps_module
from benchmarks.gpu_check.__main__ import main, write_page
from benchmarks.gpu_check.cases import SUBJECTS, TINY_CONFIGS, Case, tiny
from benchmarks.gpu_check.lines import Lines
from benchmarks.gpu_check.page import page_of, plan_error_percent
from benchmarks.gpu_check.plans import MODES
from benchmarks.gpu_check.profile import covered
from benchmarks.gpu_check.random_base import random_base
from benchmarks.gpu_check.steps import Check, Step, marked_files, run_step
from benchmarks.gpu_check.study import Scores, compared
from benchmarks.gpu_check.wheels import THERE, WANTED, needed
from lorascope.bases.transformers_config import stored_dtype
from lorascope.config import Config, QuantConfig, Storage
from lorascope.quantizers.footprint import measure_footprint
from lorascope.quantizers.loading import load_base, quantize_base, unquantized_dtype
from tests.devices import CPU
from tests.imports import MODULES, room
from tests.test_layers import foreign

SIXTEEN_BITS = {
    torch.float16: QuantConfig("fp16", Storage.float16),
    torch.bfloat16: QuantConfig("bf16", Storage.bfloat16),
}
PLAN_TOLERANCE_PERCENT = 0.1
"""As in tests/planning/test_prediction.py."""
LONGEST_SECONDS = 180.0


def test_modes_are_those_of_conf(compose: Callable[..., Config]) -> None:
    assert [compose(f"quant={name}").quant for name in MODES] == list(MODES.values())


@pytest.mark.parametrize(("shape", "mode"), [(s, m) for s in TINY_CONFIGS for m in MODES])
def test_a_random_base_is_what_the_stages_make_of_the_same_weights(
    tmp_path: Path, shape: str, mode: str
) -> None:
    config, quant = TINY_CONFIGS[shape], MODES[mode]
    stored = unquantized_dtype(quant, stored_dtype(config))
    source = random_base(config, SIXTEEN_BITS[stored], CPU).model
    source.to(stored).save_pretrained(tmp_path / "base")
    quantize_base(tmp_path / "base", quant, CPU, tmp_path / "stored")
    staged = load_base(tmp_path / "stored", quant, CPU)
    ours = random_base(config, quant, CPU).model
    ids = torch.randint(96, (2, 7))
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, staged(ids).logits)
    assert measure_footprint(ours).total_bytes == measure_footprint(staged).total_bytes


@pytest.mark.slow
def test_the_whole_check_runs_on_a_cpu_and_tells_what_is_known_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, with the arguments of each; those that need no process of their own in this
    one, where the libraries are loaded."""
    before, check = used_seconds(), Check("cpu", True, tmp_path / "carried", tmp_path)
    for step in steps_module.steps(check):
        if step.name in ("start", "tests"):
            run_step(step, check, time.monotonic() + 1500, None)
            continue
        _, module, *words = step.words
        monkeypatch.setattr(sys, "argv", [module, *words])
        import_module(module).main()
    write_page(check)
    assert used_seconds() - before < LONGEST_SECONDS
    lines: list[dict[str, Any]] = Lines(tmp_path / "results.jsonl").read()
    log = (tmp_path / "log.txt").read_text()
    assert {line["ended"] for line in lines if line["kind"] == "end"} == {"well"}, log[-3000:]
    assert [line["failure"] for line in lines if line.get("failure")] == []
    told = {kind: [line for line in lines if line["kind"] == kind] for kind in ("test", "trial")}
    assert {line["outcome"] for line in told["test"]} == {"passed"}
    # The same device, the same bits: a base and two trials, in a folder where none was trained.
    assert len(told["trial"]) == 3
    for line in told["trial"]:
        assert line["passed"]
        assert set(line["loss_gaps_nats"].values()) == {0.0}
    assert [line["passed"] for line in lines if line["kind"] == "merge"] == [True]
    for subject in map(tiny, SUBJECTS):
        cases = [line for line in lines if line["step"] == subject.name and "case" in line]
        assert [line["case"] for line in cases] == [case.name for case in subject.cases]
        for line, case in zip(cases, subject.cases, strict=True):
            if case.profiled:
                assert line["launches"] > 100
                assert 0 < line["busy_share"] <= 1
            elif not case.bare:
                assert abs(plan_error_percent(line) or 100) < PLAN_TOLERANCE_PERCENT, line
    assert "3 of 3 within losses and standard errors" in (tmp_path / "page.md").read_text()


def used_seconds() -> float:
    """CPU time of this process and of those that ended: unlike the clock's it is the same on a busy
    computer."""
    return sum(os.times()[:4])


def test_a_step_that_takes_too_long_is_ended_with_its_children_and_told(tmp_path: Path) -> None:
    check = Check("cuda", False, tmp_path, tmp_path)
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; '\
              'time.sleep(60); open(\"late\", \"w\")'])"
    later = time.monotonic() + 100
    run_step(Step("slow", 2, ("-c", script)), check, later, None)
    run_step(Step("cut", 60, ("-c", "")), check, time.monotonic() + 5, None)
    run_step(Step("wrong", 60, ("-c", "raise SystemExit(3)")), check, later, None)
    slow, cut, wrong = check.lines.read()
    assert slow["ended"] == "stopped after 2 s"
    assert cut["ended"] == "left out: the check's time was over"
    assert wrong["ended"] == "exit code 3"
    assert "== slow" in check.log.read_text()


def test_steps_and_their_limits_fill_eight_minutes_at_most(tmp_path: Path) -> None:
    whole = list(steps_module.steps(Check("cuda", False, tmp_path, tmp_path)))
    assert [step.name for step in whole] == [
        "start", "tests", "llama-2-7b nf4", "study", "llama-2-7b int8", "gemma-2b nf4",
        "llama-2-7b fp16",
    ]  # fmt: skip
    assert sum(step.limit_seconds for step in whole if step.name != "start") <= 470


def test_files_with_marked_tests_are_found() -> None:
    marked = {"training/test_packing", "training/test_reproducing", "scoring/test_merging"}
    assert {f"tests/{name}.py" for name in marked} <= set(marked_files())


def test_a_study_is_compared_loss_by_loss_and_in_standard_errors() -> None:
    known = Scores({"test": 1.0}, {"test": (0.8, 0.05)})
    near = compared(Scores({"test": 1.02}, {"test": (0.89, 0.05)}), known)
    assert near["passed"]
    assert near["gaps_in_standard_errors"] == {"test": pytest.approx(1.8)}
    assert near["loss_gaps_nats"] == {"test": pytest.approx(0.02)}
    assert not compared(Scores({"test": 1.04}, {"test": (0.8, 0.05)}), known)["passed"]
    assert not compared(Scores({"test": 1.0}, {"test": (0.91, 0.05)}), known)["passed"]
    assert not compared(Scores({"test": 1.0}, {}), None)["passed"]
    assert not compared(Scores({}, {}), known)["passed"]


def test_spans_that_overlap_count_once() -> None:
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4.0


def test_the_page_tells_gains_and_distances_of_what_there_is() -> None:
    lines: list[dict[str, object]] = [
        steps_line(Case(256, 8), 0.2, peak=100, planned=103),
        steps_line(Case(256), 0.1, peak=100, planned=99),
        steps_line(Case(256, bare=True), 0.15),
        {"step": "tests", "kind": "test", "name": "t", "outcome": "failed", "failure": "a\nb != c"},
        {"step": "study", "kind": "end", "ended": "stopped after 150 s", "seconds": 150.0},
    ]
    page = page_of(lines)
    assert "8 single steps / K=8 256: 4.00" in page
    assert "bare 256 / lorascope's step: 1.50" in page
    assert "median error 2.0 %, largest 3.0 %, 2 cases" in page
    assert "1 failed\n- t: b != c" in page
    assert "- study: stopped after 150 s, 150.0 s" in page


def steps_line(
    case: Case, seconds: float, peak: int | None = None, planned: int | None = None
) -> dict[str, object]:
    return {
        "step": "llama-2-7b nf4", "kind": "steps", "case": case.name, "step_seconds": seconds,
        "lowest_seconds": seconds, "highest_seconds": seconds, "tokens_a_second": 1.0,
        "peak_bytes": peak, "reserved_bytes": None, "planned_bytes": planned,
    }  # fmt: skip


@pytest.mark.slow
def test_without_cuda_it_says_so_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu_check", "--output", str(tmp_path)])
    main()
    assert "no CUDA device" in capsys.readouterr().out
    assert not (tmp_path / "page.md").exists()


def test_carried_wheels_are_all_that_the_other_machine_lacks() -> None:
    """Imports of all rooms but the report's, MLflow's and that which begins studies, which the
    study there does not enter; and but the extras auto-round, whose modes it does not ask for,
    gguf, as it exports nothing, and submitit, as it trains there."""
    there = {canonicalize_name(name) for name in (*needed(WANTED, THERE), *THERE)}
    distributions = packages_distributions()
    passed_by = ("reporting", "tracking", "starting")
    entered = [module for module in MODULES if room(module) not in passed_by]
    lacking = {
        (module, name)
        for module in entered
        for name in foreign(module) & distributions.keys() - {"auto_round", "gguf", "submitit"}
        if not there & {canonicalize_name(own) for own in distributions[name]}
    }
    assert not lacking
