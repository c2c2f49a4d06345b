"""`lorascope status`: what there is of a study, said from its records and locks alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.adapters.kinds import rank_of
from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.locks import locked_folders
from lorascope.files.store import read_record, write_record
from lorascope.records import EvaluationRecord, Status, TrialRecord
from lorascope.reporting import units
from lorascope.stages.status import best_of, next_step, status_text
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand, with_overrides
from lorascope.study.params import declared_overrides
from lorascope.study.status import ModeStatus, SweepStatus, sweep_status
from tests.command_line import lorascope
from tests.conftest import REPOSITORY, run_command
from tests.lock_holder import another_holder
from tests.recorded_project import write_trial
from tests.reporting.test_report_without_torch import ABSENT, REFUSE
from tests.study_factory import Trial

PROGRAM = f"""{REFUSE}
sys.argv = ["lorascope", *sys.argv[2:]]
from lorascope.cli import main
main()
"""


def status(layout: Layout, *given: str) -> SweepStatus:
    overrides = with_overrides(declared_overrides(layout), list(given))
    return sweep_status(expand(layout, overrides), layout, overrides, list(given))


def points(layout: Layout) -> dict[tuple[str, int], tuple[Config, Path]]:
    """(mode, rank) -> the declared trial and its folder."""
    found = {}
    for config in expand(layout, declared_overrides(layout)):
        quant = config.quant.name
        folder = layout.trials(quant) / declare_trial(config, layout).name
        found[quant, rank_of(config.adapter)] = (config, folder)
    return found


def scores_of(folder: Path, layout: Layout) -> Path:
    return layout.evaluations(folder.parent.name) / folder.name


def without_heavy_libraries(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(ABSENT), *arguments],
        cwd=layout.root, check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip


def test_trials_are_counted_mode_by_mode_by_what_there_is_of_them(recorded: Layout) -> None:
    found = points(recorded)
    config, _ = found["fp16", 8]
    write_trial(recorded, config, Trial("fp16", 8, status=Status.diverged, reason="nan at step 3"))
    shutil.rmtree(found["nf4", 2][1])
    shutil.rmtree(scores_of(found["nf4", 8][1], recorded))
    fp16, nf4 = status(recorded).modes
    assert (fp16.declared, len(fp16.completed), len(fp16.failed), fp16.missing) == (2, 1, 1, [])
    assert (nf4.declared, len(nf4.completed), len(nf4.failed)) == (2, 1, 0)
    assert nf4.missing == [found["nf4", 2][1].name]
    assert (list(fp16.scores), list(nf4.scores)) == ([found["fp16", 2][1].name], [])
    assert fp16.base_scored
    assert nf4.base_scored
    text = status_text(status(recorded))
    assert re.search(r"^fp16 +2 +1 +1 diverged +0 +1  scored$", text, re.MULTILINE)
    assert re.search(r"^nf4 +2 +1 +1 +0  scored$", text, re.MULTILINE)
    assert f"\nFailed:\n  {found['fp16', 8][1].name}: diverged, nan at step 3\n" in text
    # 105,600 tokens and 11.6 s in each record of the two that completed.
    assert "211,200 tokens in 23.2 s, by the records of 2 trials.\n" in text


def test_trials_that_were_trained_at_once_share_their_seconds(recorded: Layout) -> None:
    for _, folder in points(recorded).values():
        record = read_record(folder, TrialRecord)
        assert record.result is not None
        write_record(folder, replace(record, result=replace(record.result, pack_ranks=[2, 8])))
    # 11.6 s for two trials of each mode.
    assert "422,400 tokens in 23.2 s, by" in status_text(status(recorded))


def test_a_reason_of_several_lines_is_shown_in_one(recorded: Layout) -> None:
    config, folder = points(recorded)["nf4", 2]
    reason = "cannot allocate\n  1.2 GB\n"
    write_trial(recorded, config, Trial("nf4", 2, status=Status.out_of_memory, reason=reason))
    line = f"  {folder.name}: out_of_memory, cannot allocate 1.2 GB\n"
    assert line in status_text(status(recorded))


def test_the_best_lead_on_validation_by_loss_and_by_accuracy(recorded: Layout) -> None:
    config, folder = points(recorded)["nf4", 2]
    trained = read_record(folder, TrialRecord)
    write_trial(recorded, config, Trial("nf4", 2, loss_nats=0.1))
    best = [one for mode in status(recorded).modes for one in best_of(mode)]
    assert [(b.cell.quant, b.measure, b.value, b.trial.key.dials["rank"]) for b in best] == [
        # The losses of fp16 are equal, and of ten validation items 7, 8, 9 and 10 are right.
        ("fp16", "validation loss, nats", "0.3100", 2),
        ("fp16", "validation accuracy, %", "80.0", 8),
        ("nf4", "validation loss, nats", "0.1100", 2),
        ("nf4", "validation accuracy, %", "100.0", 8),
    ]
    assert read_record(folder, TrialRecord).identity == trained.identity


def test_scores_by_loss_have_no_best_accuracy(recorded: Layout) -> None:
    for folder in (scores_of(folder, recorded) for _, folder in points(recorded).values()):
        record = read_record(folder, EvaluationRecord)
        splits = {name: replace(split, accuracy=None) for name, split in record.splits.items()}
        write_record(folder, replace(record, splits=splits))
    measures = {one.measure for mode in status(recorded).modes for one in best_of(mode)}
    assert measures == {"validation loss, nats"}


def test_scores_that_were_made_otherwise_do_not_count(recorded: Layout) -> None:
    other = status(recorded, "evaluate.batch_size=7")
    assert [len(mode.completed) for mode in other.modes] == [2, 2]
    assert not any(mode.scores or mode.base_scored for mode in other.modes)


def test_overrides_replace_axes(recorded: Layout) -> None:
    (mode,) = status(recorded, "quant=nf4", "lora.rank=range(7,10)").modes
    assert (mode.quant, mode.declared, len(mode.missing)) == ("nf4", 3, 2)
    assert [trial.key.dials["rank"] for trial in mode.completed] == [8]


def test_two_points_that_are_one_trial_count_once(recorded: Layout) -> None:
    (mode,) = status(recorded, "quant=nf4", "lora.rank=8,8").modes
    assert (mode.declared, len(mode.completed)) == (1, 1)


def test_a_damaged_record_is_named_and_the_others_count(recorded: Layout) -> None:
    trial = points(recorded)["fp16", 2][1] / RECORD
    scores = scores_of(points(recorded)["nf4", 8][1], recorded) / RECORD
    trial.write_bytes(trial.read_bytes()[:100])
    scores.write_bytes(b"\xff")
    done = without_heavy_libraries(recorded, "status")
    assert done.returncode == 1, done.stderr
    assert f"{trial}: not a readable TrialRecord" in done.stdout
    assert f"{scores}: not a readable EvaluationRecord" in done.stdout
    fp16, nf4 = status(recorded).modes
    assert (len(fp16.completed), len(fp16.damaged), len(fp16.scores)) == (1, 1, 1)
    assert (len(nf4.completed), len(nf4.damaged), len(nf4.scores)) == (2, 1, 1)
    assert "Next, once what is damaged is deleted" in done.stdout
    assert "  lorascope train-lora -m model=tiny" in done.stdout


def test_nothing_prepared_is_said_with_the_commands_that_prepare(bare_project: Layout) -> None:
    done = without_heavy_libraries(bare_project, "status")
    assert (done.returncode, done.stderr) == (1, "")
    assert "Model small, data toy: 4 trials declared." in done.stdout
    assert f"{bare_project.base('small') / RECORD}: no record here" in done.stdout
    commands = done.stdout.partition("Next (or all that remains by `dvc repro`):\n")[2]
    assert commands.split("\n  ") == [
        "  lorascope prepare-base model=small",
        "lorascope prepare-data model=small data=toy evaluate=default",
        "lorascope quantize-base model=small quant=fp16",
        "lorascope quantize-base model=small quant=nf4\n",
    ]


def test_a_mode_that_is_not_stored_leaves_the_others_counted(recorded: Layout) -> None:
    (recorded.quantized("tiny", "nf4") / RECORD).write_text("{")
    found = status(recorded)
    fp16, nf4 = found.modes
    assert (fp16.nameable, len(fp16.completed)) == (True, 2)
    assert (nf4.nameable, nf4.declared, nf4.trials) == (False, 2, [])
    assert next_step(found).commands == ["lorascope quantize-base model=tiny quant=nf4"]
    assert re.search(r"^nf4 +2$", status_text(found), re.MULTILINE)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("lora.rnak=8", "rnak"),
        ("lora.rank=0", "lora.rank=0"),
        ("--watch", "unknown flag --watch"),
        ("data=biographies,alpaca", "one model on one dataset"),
        ("lora=modules lora.modules=[c_attn]", "This model has"),
    ],
)
def test_what_cannot_be_used_is_named(recorded: Layout, override: str, part: str) -> None:
    with pytest.raises(LorascopeError, match=part):
        run_command(recorded, "status", *override.split())


def test_a_trial_in_training_is_shown_until_its_process_is_killed(recorded: Layout) -> None:
    folder = points(recorded)["nf4", 2][1]
    shutil.rmtree(folder)
    place = folder.relative_to(recorded.root)
    with another_holder(folder, recorded) as (_, process):
        found = status(recorded)
        assert [mode.training for mode in found.modes] == [[], [folder.name]]
        assert found.running == [place]
        text = status_text(found)
        assert f"Running now:\n  {place}\n" in text
        assert re.search(r"^nf4 +2 +1 +1 +1 +1  scored$", text, re.MULTILINE)
        assert "Next, when what runs now has ended" in text
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert folder not in locked_folders(recorded)
    assert status(recorded).running == []


def test_jobs_whose_command_was_killed_are_shown_until_one_waits_for_them(
    recorded: Layout,
) -> None:
    config, folder = points(recorded)["nf4", 2]
    shutil.rmtree(folder)
    job = recorded.jobs / "0a"
    job.mkdir(parents=True)
    (job / "trials.json").write_text(json.dumps([declare_trial(config, recorded).identity]))
    (job / "slurm_id").write_text("7_1")
    said = lorascope(recorded, "status").stdout
    assert "goes on with:\n  job 7_1, 1 trial: waits in the queue, or is lost\n" in said
    (job / "running").touch()
    assert "job 7_1, 1 trial: at work\n" in lorascope(recorded, "status").stdout
    with another_holder(folder, recorded):
        assert "job 7_1" not in lorascope(recorded, "status").stdout


def complete(layout: Layout) -> None:
    """As it is."""


def one_missing(layout: Layout) -> None:
    shutil.rmtree(points(layout)["nf4", 2][1])


def one_killed(layout: Layout) -> None:
    config, _ = points(layout)["nf4", 2]
    write_trial(layout, config, Trial("nf4", 2, status=Status.killed, reason="SIGKILL"))


def one_diverged(layout: Layout) -> None:
    config, _ = points(layout)["nf4", 2]
    write_trial(layout, config, Trial("nf4", 2, status=Status.diverged, reason="nan"))


def one_unscored(layout: Layout) -> None:
    shutil.rmtree(scores_of(points(layout)["nf4", 2][1], layout))


@pytest.mark.parametrize(
    ("change", "stage", "by_dvc"),
    [
        (complete, "report", False),
        (one_missing, "train-lora", True),
        # `dvc repro` finds the stage's record there and does nothing.
        (one_killed, "train-lora", False),
        (one_diverged, "report", False),
        (one_unscored, "evaluate", True),
    ],
)
def test_the_next_command_does_what_is_left(
    recorded: Layout, change: Callable[[Layout], None], stage: str, by_dvc: bool
) -> None:
    change(recorded)
    step = next_step(status(recorded, "runtime.threads=1"))
    assert step.by_dvc is by_dvc
    (command,) = step.commands
    assert command.startswith(f"lorascope {stage} ")
    assert command.endswith(" runtime.threads=1")
    if stage != "report":
        _, _, flag, *overrides = shlex.split(command)
        assert flag == "-m"
        # The command composes the grid that was asked about.
        points_of = [
            (c.quant.name, rank_of(c.adapter), c.seed) for c in expand(recorded, overrides)
        ]
        assert points_of == [("fp16", 2, 0), ("fp16", 8, 0), ("nf4", 2, 0), ("nf4", 8, 0)]


def test_status_loads_no_library_that_trains_or_tracks(recorded: Layout) -> None:
    done = without_heavy_libraries(recorded, "status")
    assert done.returncode == 1, done.stderr
    assert "4 trials declared" in done.stdout
    assert done.stdout == status_text(status(recorded))


def test_nothing_is_left_once_the_report_is_made_of_what_is_there(recorded: Layout) -> None:
    asked = lorascope(recorded, "status", "--json")
    told = json.loads(asked.stdout)
    assert (asked.returncode, asked.stderr, told["complete"]) == (1, "", False)
    assert [(mode["quant"], len(mode["completed"])) for mode in told["modes"]] == [
        ("fp16", 2), ("nf4", 2),
    ]  # fmt: skip
    (report,) = told["next"]
    assert lorascope(recorded, *shlex.split(report)[1:]).returncode == 0
    done = lorascope(recorded, "status")
    assert done.returncode == 0
    assert done.stdout.endswith(
        "Nothing is left to run. `lorascope summary` prints the answer, reports/report.html shows "
        "why.\n"
    )
    # Another rule, and another set of trials, are another report.
    for other in ("decide.margin_accuracy=0.2", "lora.rank=2"):
        assert next_step(status(recorded, other)).commands == [f"lorascope report {other}"]
    # A merge that is cut short is for the report to tell.
    merged = recorded.merged("tiny") / RECORD
    merged.parent.mkdir(parents=True)
    merged.write_text("{")
    assert not status(recorded).reported
    shutil.rmtree(merged.parent)
    assert status(recorded).reported
    scores = scores_of(points(recorded)["nf4", 8][1], recorded)
    shutil.rmtree(scores)
    assert not status(recorded).reported


def test_a_report_says_whether_it_names_what_to_ship(recorded: Layout) -> None:
    asked = lorascope(recorded, "report", "--json", "--require-answer")
    told = json.loads(asked.stdout)
    answer = told["decision"]["recommended"]
    assert asked.returncode == (1 if answer is None else 0)
    assert "reports/report.html" in told["written"]
    shutil.rmtree(recorded.evaluations("fp16"))
    shutil.rmtree(recorded.evaluations("nf4"))
    assert lorascope(recorded, "report", "--require-answer").returncode == 1
    assert lorascope(recorded, "report").returncode == 0


def test_what_cannot_be_used_is_told_to_a_program_too(recorded: Layout) -> None:
    asked = lorascope(recorded, "check", "lora.rank=0", "--json")
    assert asked.returncode == 2
    assert json.loads(asked.stdout)["error"].startswith("lora.rank=0")
    assert asked.stderr.startswith("lorascope: error: lora.rank=0")


@pytest.mark.slow
def test_a_real_training_and_its_scores_are_found(
    project: Layout, compose: Callable[..., Config]
) -> None:
    from lorascope.execution import sweep
    from lorascope.stages import evaluate

    config = compose("quant=int8", "lora.rank=3", "lora.alpha=8")
    trial = sweep.run(config, project)
    assert trial.result is not None
    asked = ("quant=int8", "lora.rank=3,5", "runtime.tracking=false")
    (mode,) = status(project, *asked).modes
    assert ([one.trial for one in mode.completed], len(mode.missing)) == ([trial.trial], 1)
    assert not mode.scores
    scored = evaluate.command([config], project)[0]
    assert scored is not None
    (mode,) = status(project, *asked).modes
    assert mode.scores == {trial.trial: scored}
    assert mode.base_scored
    loss, accuracy = best_of(mode)
    assert loss.value == f"{trial.result.validation_loss_nats:.4f}"
    assert accuracy.value == f"{100 * (scored.splits['validation'].accuracy or 0):.1f}"
    text = status_text(status(project, *asked))
    seconds = units.seconds(trial.result.train_seconds)
    assert f"{trial.result.processed_tokens:,} tokens in {seconds} s" in text


def test_an_empty_mode_shows_no_best() -> None:
    assert best_of(ModeStatus("nf4", 2, nameable=True)) == []
